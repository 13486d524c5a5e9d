"""What must hold in every PPO update by construction, checked while it runs: a named error instead of a model quietly ruined."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from aligndistill.errors import InvariantError
from aligndistill.models.groups import TokenGroup

RATIO_TOLERANCE_NATS = {torch.float32: 1e-2, torch.float64: 1e-4}
HALF_PRECISION_TOLERANCE_NATS = 0.5
"""Of any single token; the mean must lie ten times closer."""


def require_ratio_of_one(now_BKR: Tensor, recorded_BKR: Tensor, counted_BKR: Tensor, dtype: torch.dtype) -> None:
    """Before the first step of an update the policy is the one that sampled, so every probability ratio is 1.

    Raises:
        InvariantError: `ratio-is-one`.
    """
    difference = (now_BKR.detach() - recorded_BKR)[counted_BKR].abs()
    if not len(difference):
        return
    largest, mean = difference.max().item(), difference.mean().item()
    tolerance = RATIO_TOLERANCE_NATS.get(dtype, HALF_PRECISION_TOLERANCE_NATS)
    if not (largest <= tolerance and mean <= tolerance / 10):
        raise InvariantError(
            "ratio-is-one",
            f"before the first step of an update, log-probabilities differ from those recorded when sampling by up to "
            f"{largest:.3g} nats (mean {mean:.3g}; at most {tolerance} and {tolerance / 10} are rounding). Sampling and training "
            "do not see the same distribution: this model's cache, dropout or logit scaling differs between the two. Try "
            "attn_implementation: eager, or dtype: float32.",
        )


def require_masks_of_lengths(tokens_BKR: Tensor, groups: Sequence[TokenGroup]) -> None:
    """The mask of a micro-batch has as many tokens as were sampled.

    Raises:
        InvariantError: `mask-is-lengths`.
    """
    found = tokens_BKR.sum(-1).tolist()
    lengths = [[len(response) for response in group.responses] for group in groups]
    if found != lengths:
        raise InvariantError("mask-is-lengths", f"the mask counts {found} tokens where {lengths} were sampled.")


def require_sound_figures(metrics: Mapping[str, float]) -> None:
    """Everything measured of an update is finite, and the k3 estimate of KL is not negative.

    Raises:
        InvariantError: `finite` or `k3-not-negative`.
    """
    strange = {name: value for name, value in metrics.items() if not math.isfinite(value)}
    if strange:
        named = ", ".join(f"{name} is {value}" for name, value in strange.items())
        raise InvariantError("finite", f"{named}. Look at the reward source and the learning rate.")
    if metrics["kl_k3_nats"] < 0:
        raise InvariantError("k3-not-negative", f"the k3 estimate of KL is {metrics['kl_k3_nats']}, and it cannot be below 0.")
