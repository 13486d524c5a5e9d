"""Proximal policy optimisation: the clipped policy and value losses (Schulman et al. 2017, eq. 7 and 9) with an entropy bonus.

As in the released code for language models (TRL, OpenRLHF, "The N+ Implementation Details of RLHF with PPO"), the value is clipped
around its old estimate, and everything is a mean over tokens. Here that mean is over all tokens of the optimiser step, over every
micro-batch and process; TRL averages each micro-batch by itself, so that its gradient depends on how the batch was split.

Shapes: N responses, R tokens each, padded.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from aligndistill.objectives.inputs import Loss
from aligndistill.objectives.kl import LOG_RATIO_LIMIT, k3


@dataclass(frozen=True)
class Learned:
    """What the model says now: log-probabilities (nats), entropy of the next-token distribution (nats), values."""

    policy_NR: Tensor
    entropy_NR: Tensor
    values_NR: Tensor


@dataclass(frozen=True)
class UpdateBatch:
    """What was recorded when the responses were sampled, and the advantages made of it.

    Attributes:
        mask_NR: the tokens that count.
    """

    policy_NR: Tensor
    values_NR: Tensor
    advantages_NR: Tensor
    returns_NR: Tensor
    mask_NR: Tensor


def ppo(
    learned: Learned,
    collected: UpdateBatch,
    *,
    clip_range: float,
    value_clip_range: float | None,
    value_coefficient: float,
    entropy_coefficient: float,
) -> Loss:
    """policy + value_coefficient * value - entropy_coefficient * entropy, each a mean over the tokens that count.

    Metrics are means over those tokens too, but for `ratio_max`.

    Args:
        value_clip_range: how far the value may move from its old estimate before its loss stops falling; None: as far as it will.
    """
    mask_NR = collected.mask_NR
    tokens = mask_NR.sum().clamp(min=1)

    def mean(values_NR: Tensor) -> Tensor:
        return torch.where(mask_NR, values_NR, 0.0).sum() / tokens

    now_NR, before_NR = (torch.where(mask_NR, one, 0.0) for one in (learned.policy_NR, collected.policy_NR))
    ratio_NR = (now_NR - before_NR).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()
    clipped_NR = ratio_NR.clamp(1 - clip_range, 1 + clip_range)
    unclipped_loss_NR, clipped_loss_NR = (-collected.advantages_NR * ratio for ratio in (ratio_NR, clipped_NR))
    policy_loss = mean(torch.maximum(unclipped_loss_NR, clipped_loss_NR))

    values_NR, old_values_NR, returns_NR = (
        torch.where(mask_NR, one, 0.0) for one in (learned.values_NR, collected.values_NR, collected.returns_NR)
    )
    value_cost_NR = (values_NR - returns_NR) ** 2
    if value_clip_range is not None:
        change_NR = (values_NR - old_values_NR).clamp(-value_clip_range, value_clip_range)
        value_cost_NR = torch.maximum(value_cost_NR, (old_values_NR + change_NR - returns_NR) ** 2)
    value_loss = 0.5 * mean(value_cost_NR)

    entropy = mean(learned.entropy_NR)
    loss = policy_loss + value_coefficient * value_loss
    if entropy_coefficient:  # else the gradient of 0 would be computed over the whole vocabulary
        loss = loss - entropy_coefficient * entropy
    with torch.no_grad():
        metrics = {
            "policy_loss": policy_loss.detach(),
            "value_loss": value_loss.detach(),
            "entropy_nats": entropy.detach(),
            "clip_fraction": mean((clipped_loss_NR > unclipped_loss_NR).float()),
            "update_kl_nats": mean(k3(before_NR, now_NR)),
            "ratio_mean": mean(ratio_NR),
            "ratio_max": torch.where(mask_NR, ratio_NR, 0.0).max(),
        }
    return Loss(loss, metrics)
