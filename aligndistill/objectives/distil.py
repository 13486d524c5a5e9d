"""Distillation on given responses: the student's next-token distributions are drawn to the teacher's, its tokens to the given ones.

    loss = mean over tokens of [ (1 - w) s D(teacher, student) - w 1[imitated] log P(token) ],   w = sft_weight

Hinton et al. 2015 (arXiv:1503.02531), section 2, token by token. D is one of `divergences`; s is the power of the temperature that
keeps the size of its gradient (`gradient_scale`). Both terms are means over all response tokens of the optimiser step.

Shapes: S response tokens.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from aligndistill.objectives.inputs import Loss


@dataclass(frozen=True)
class Distilled:
    """The response tokens of a batch.

    Attributes:
        divergence_S: between teacher and student where each token is predicted (`divergences.divergence`).
        logprobs_S: the student's log-probability of each token, nats.
        imitated_S: which tokens the supervised term counts: not those of answers that are no example to follow.
    """

    divergence_S: Tensor
    logprobs_S: Tensor
    imitated_S: Tensor


def distil(distilled: Distilled, *, sft_weight: float, scale: float) -> Loss:
    """The loss of a batch.

    Metrics, one number for each token: `divergence`, unscaled; `nll` of the imitated tokens, nats, nan for others.

    Args:
        scale: `divergences.gradient_scale` of the divergence and its temperature.
    """
    nll_S = torch.where(distilled.imitated_S, -distilled.logprobs_S, 0.0)
    return Loss(
        value=((1 - sft_weight) * scale * distilled.divergence_S + sft_weight * nll_S).mean(),
        metrics={
            "divergence": distilled.divergence_S.detach(),
            "nll": torch.where(distilled.imitated_S, nll_S, torch.nan).detach(),
        },
    )
