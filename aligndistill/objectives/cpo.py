"""CPO: contrastive preference optimisation (Xu et al. 2024, arXiv:2401.08417): DPO with a uniform reference, plus NLL.

With s_i the policy's summed log-probability of response i, one pair with score_i > score_j costs

    -log sigmoid(beta (s_i - s_j))

and each prompt's best response adds `sft_weight` times its negative log-likelihood per token. Sums favour short responses: a long
one is less likely whatever it says.

The paper writes the NLL as a sum over tokens. The released code and TRL take the mean over all tokens of a micro-batch, so there a
long response counts more; here it is the mean over a response's tokens, then over prompts, whatever the batch.
"""

from typing import Literal

from aligndistill.objectives.inputs import Loss, Ranked, without_padding
from aligndistill.objectives.pairs import reward_metrics, sigmoid_loss, with_sft


def cpo(ranked: Ranked, *, beta: float = 0.1, labels: Literal["hard", "soft"] = "hard", sft_weight: float = 1.0) -> Loss:
    """The CPO loss; soft labels as in `dpo.py`.

    Metrics: see `reward_metrics`; rewards are beta * s, nats. With `sft_weight` also `sft_loss` (see `with_sft`).
    """
    clean = without_padding(ranked)
    reward_BK = beta * clean.policy_BK
    value = sigmoid_loss(reward_BK, clean, labels)
    return with_sft(Loss(value, reward_metrics(reward_BK, clean)), clean, sft_weight)
