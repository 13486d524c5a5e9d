"""SimPO: simple preference optimisation without a reference (Meng et al. 2024, arXiv:2405.14734), eq. 6.

With l_i the policy's mean log-probability per token of response i, one pair with score_i > score_j costs

    -log sigmoid(beta (l_i - l_j) - gamma),    gamma = beta * gamma_beta_ratio

so the better response must be likelier by `gamma_beta_ratio` nats per token. The released code has that ratio in place of the
paper's gamma, as it can be kept while beta is changed.

A soft label p mixes both directions, each with its own margin: p cost(i over j) + (1 - p) cost(j over i). So tied responses cost
the same in either order. (Label smoothing in the released code and in TRL subtracts the margin from the same side in both.)

`sft_weight` adds the negative log-likelihood per token of each prompt's best response. The loss is the mean over a prompt's pairs,
then over prompts, as in `dpo.py`.
"""

from typing import Literal

from aligndistill.objectives.inputs import Loss, Ranked, without_padding
from aligndistill.objectives.pairs import reward_metrics, sigmoid_loss, with_sft


def simpo(
    ranked: Ranked,
    *,
    beta: float = 2.0,
    gamma_beta_ratio: float = 0.5,
    labels: Literal["hard", "soft"] = "hard",
    sft_weight: float = 0.0,
) -> Loss:
    """The SimPO loss.

    Metrics: see `reward_metrics`; rewards are beta * l, nats per token. With `sft_weight` also `sft_loss` (see `with_sft`).
    """
    clean = without_padding(ranked)
    reward_BK = beta * clean.policy_BK / clean.lengths_BK
    value = sigmoid_loss(reward_BK, clean, labels, margin=beta * gamma_beta_ratio)
    return with_sft(Loss(value, reward_metrics(reward_BK, clean)), clean, sft_weight)
