"""The inputs and outputs of every offline objective."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Ranked:
    """B prompts with K ranked responses each, best first, padded.

    Attributes:
        policy_BK: log-probability of each response under the policy, summed over its tokens, nats.
        reference_BK: the same under the reference model; None for objectives without a reference.
        scores_BK: the teacher's scores on the logit scale: P(i beats j) = sigmoid(score_i - score_j).
        lengths_BK: tokens of each response.
        valid_BK: False where a slot is padding.
        baseline_nats: KTO's baseline of the whole optimiser step, a scalar; None for all others.
    """

    policy_BK: Tensor
    reference_BK: Tensor | None
    scores_BK: Tensor
    lengths_BK: Tensor
    valid_BK: Tensor
    baseline_nats: Tensor | None = None


@dataclass(frozen=True)
class Loss:
    """A scalar to minimise, and detached metrics to log.

    A metric on rankings has one number for each prompt, nan for a prompt without any: the log is the mean over the numbers of
    the whole optimiser step, so it does not depend on how that is split. (Distillation has one for each token; PPO's metrics are
    scalars, means over tokens.)
    """

    value: Tensor
    metrics: dict[str, Tensor]


def without_padding(ranked: Ranked) -> Ranked:
    """A copy with 0 in every padded slot (and length 1), through which no gradient flows.

    Lengths take the policy's dtype and are at least 1, so that they can be divided by.
    """
    valid_BK = ranked.valid_BK
    return Ranked(
        policy_BK=torch.where(valid_BK, ranked.policy_BK, 0.0),
        reference_BK=None if ranked.reference_BK is None else torch.where(valid_BK, ranked.reference_BK, 0.0),
        scores_BK=torch.where(valid_BK, ranked.scores_BK, 0.0),
        lengths_BK=torch.where(valid_BK, ranked.lengths_BK, 1).clamp(min=1).to(ranked.policy_BK.dtype),
        valid_BK=valid_BK,
        baseline_nats=ranked.baseline_nats,
    )
