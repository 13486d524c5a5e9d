"""Distillation on given responses: the student's next-token distributions are drawn to the teacher's, its tokens to the given ones.

    loss = mean over tokens of [ (1 - w) s D(teacher, student) - w 1[imitated] log P(token) + v H ],   w = sft_weight

Hinton et al. 2015 (arXiv:1503.02531), section 2, token by token. D is one of `divergences`; s is the power of the temperature that
keeps the size of its gradient (`gradient_scale`). H is the distance of hidden states (`hidden_states`), if it is asked for. All
terms are means over all response tokens of the optimiser step.

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
        hidden_S: between the hidden states where each token is predicted (`hidden_states.hidden_distance`).
    """

    divergence_S: Tensor
    logprobs_S: Tensor
    imitated_S: Tensor
    hidden_S: Tensor | None = None


def distil(distilled: Distilled, *, sft_weight: float, scale: float, hidden_weight: float = 0.0) -> Loss:
    """The loss of a batch.

    Metrics, one number for each token: `divergence` and `hidden`, without their weights; `nll` of the imitated tokens, nats, nan
    for others.

    Args:
        scale: `divergences.gradient_scale` of the divergence and its temperature.
        hidden_weight: of the distance of hidden states, if there is one.
    """
    nll_S = torch.where(distilled.imitated_S, -distilled.logprobs_S, 0.0)
    loss_S = (1 - sft_weight) * scale * distilled.divergence_S + sft_weight * nll_S
    metrics = {
        "divergence": distilled.divergence_S.detach(),
        "nll": torch.where(distilled.imitated_S, nll_S, torch.nan).detach(),
    }
    if distilled.hidden_S is not None:
        loss_S = loss_S + hidden_weight * distilled.hidden_S
        metrics["hidden"] = distilled.hidden_S.detach()
    return Loss(loss_S.mean(), metrics)
