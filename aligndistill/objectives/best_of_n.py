"""Best-of-n: imitate the best response, and nothing else. The baseline for every objective on rankings.

    loss = mean over prompts of -sum_t log P(y_best,t) / |y_best|

Dividing by the length makes every prompt count the same. It is "BoN" in Song et al. 2023 (PRO, arXiv:2306.17492), table 2.
"""

from aligndistill.objectives.inputs import Loss, Ranked, without_padding
from aligndistill.objectives.pairs import best


def best_of_n(ranked: Ranked) -> Loss:
    """Mean negative log-likelihood per token of each prompt's best response, nats; of several best, the first.

    Metrics: `logps/chosen`, the best response's summed log-probability, nats.
    """
    clean = without_padding(ranked)
    mean_logp_BK = clean.policy_BK / clean.lengths_BK
    return Loss(
        value=-best(mean_logp_BK, clean.scores_BK, clean.valid_BK).mean(),
        metrics={"logps/chosen": best(clean.policy_BK, clean.scores_BK, clean.valid_BK).detach()},
    )
