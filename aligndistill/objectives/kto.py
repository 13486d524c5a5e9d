"""KTO: Kahneman-Tversky optimisation (Ethayarajh et al. 2024, arXiv:2402.01306), eq. 7 and 8.

Each response costs by itself, as desirable or undesirable. With its log-ratio r = log(policy / reference) and the baseline z0,

    desirable      desirable_weight   * (1 - sigmoid(beta (r - z0)))
    undesirable    undesirable_weight * (1 - sigmoid(beta (z0 - r)))

averaged over a prompt's labelled responses, then over prompts. z0 is an estimate of KL(policy || reference) without gradient: the
mean log-ratio of mismatched pairs (a prompt with a response to another one), cut at 0. The caller gives that mean uncut, one number
for the whole optimiser step (`training/offline/mismatched.py`). TRL has one for each micro-batch, so its loss depends on how a step
is split.

Labels. Scores rank a prompt's responses; desirable and undesirable are relative to the prompt's mean score:
- hard: above the mean by more than `margin`, and below it by more than that. A response at the mean has no label.
- soft: each response is desirable with p = sigmoid(score - mean) and undesirable with 1 - p. With equal weights its gradient is
  that of a hard label times |2p - 1|.
A prompt without an ordered pair has no labels: it costs 0 and counts in the mean over prompts.
"""

from typing import Literal

import torch
from torch import Tensor

from aligndistill.objectives.inputs import Loss, Ranked, without_padding
from aligndistill.objectives.pairs import differences, reward_metrics

ROUNDING = 1e-4
"""A response closer to the mean than this share of the prompt's range of scores is at the mean: float32 tells no more."""


def kto(
    ranked: Ranked,
    *,
    beta: float,
    labels: Literal["hard", "soft"] = "hard",
    margin: float = 0.0,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Loss:
    """The KTO loss; `ranked` must have a reference and a baseline.

    Metrics: see `reward_metrics`; rewards are beta * log-ratio, nats. `baseline_nats` is z0 before it is cut at 0.
    """
    clean = without_padding(ranked)
    assert clean.reference_BK is not None, "KTO needs the reference's log-probabilities"
    assert clean.baseline_nats is not None, "KTO needs the baseline of the optimiser step"
    log_ratio_BK = clean.policy_BK - clean.reference_BK
    baseline_nats = clean.baseline_nats.detach().to(log_ratio_BK.dtype)
    gain_BK = beta * (log_ratio_BK - baseline_nats.clamp(min=0))
    desirable_BK, undesirable_BK = desirability(clean.scores_BK, clean.valid_BK, labels, margin)
    loss_BK = desirable_weight * desirable_BK.to(gain_BK.dtype) * torch.sigmoid(-gain_BK)
    loss_BK = loss_BK + undesirable_weight * undesirable_BK.to(gain_BK.dtype) * torch.sigmoid(gain_BK)
    metrics = reward_metrics(beta * log_ratio_BK, clean)
    return Loss(loss_BK.sum(dim=1).mean(), {**metrics, "baseline_nats": baseline_nats.expand(len(gain_BK))})


def desirability(
    scores_BK: Tensor, valid_BK: Tensor, labels: Literal["hard", "soft"], margin: float = 0.0
) -> tuple[Tensor, Tensor]:
    """(desirable_BK, undesirable_BK): each response's weight as either; over a prompt they sum to 1, or to 0 without labels."""
    both_valid_BKK = valid_BK.unsqueeze(2) & valid_BK.unsqueeze(1)
    gap_BKK = torch.where(both_valid_BKK, differences(scores_BK), 0.0)
    range_B1 = gap_BKK.amax(dim=(1, 2)).unsqueeze(1)
    above_mean_BK = gap_BKK.sum(dim=2) / valid_BK.sum(dim=1, keepdim=True).clamp(min=1)  # exactly 0 where all are tied
    if labels == "soft":
        labelled_BK = valid_BK & (range_B1 > 0)
        desirable_BK = torch.where(labelled_BK, torch.sigmoid(above_mean_BK), 0.0)
        undesirable_BK = torch.where(labelled_BK, torch.sigmoid(-above_mean_BK), 0.0)
    else:
        least_B1 = (ROUNDING * range_B1).clamp(min=margin)
        desirable_BK = (valid_BK & (above_mean_BK > least_B1)).to(scores_BK.dtype)
        undesirable_BK = (valid_BK & (-above_mean_BK > least_B1)).to(scores_BK.dtype)
    count_B1 = (desirable_BK + undesirable_BK).sum(dim=1, keepdim=True)
    share_B1 = torch.where(count_B1 > 0, 1 / count_B1.clamp(min=1), 0.0)
    return desirable_BK * share_B1, undesirable_BK * share_B1
