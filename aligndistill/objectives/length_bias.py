"""A reward model's length term: what length alone says about a preference, known in training and left out of the reward.

A judge that likes length teaches a reward model to like it. So the logit of a pair gets the term

    weight * tanh((length_i - length_j) / deviation),    lengths in tokens, deviation that of the differences,

and the reward learns what the term does not explain. The form is that of AlpacaEval 2 (Dubois et al. 2024, arXiv:2404.04475) and
of the length-controlled win rates here. The weight is that of the best prediction by length alone, fitted on the training pairs
before the reward model: what is left has no covariance with the term, so the reward has no reason to follow length. This is
"fitting the residual" (He et al. 2019, arXiv:1908.10763) and the bias product of Clark et al. 2019 (arXiv:1909.03683), whose known
bias is frozen, too: a weight that learned beside a whole network would share the length with it by their learning rates.

A logistic regression's weight is too small where a cause is left out. So a slope remains if the judge's preferences depend much on
length and much on what the reward learns; the report's accuracy by length gap shows it.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from aligndistill.objectives.pairs import differences, label_probabilities, labelled_pairs, pair_weights

STEEPEST = 20.0
"""The largest weight: where the longer answer always wins, no finite one is best."""


@dataclass(frozen=True)
class LengthTerm:
    """What length adds to the logit of a pair.

    Attributes:
        weight: logits for a difference of many deviations. Positive where the longer answer tends to win.
        deviation_tokens: the standard deviation of differences of length.
    """

    weight: float
    deviation_tokens: float

    def logit(self, gap_tokens: Tensor) -> Tensor:
        """The term of pairs with these differences of length."""
        return self.weight * torch.tanh(gap_tokens / self.deviation_tokens)


def fitted_length_term(
    scores_BK: Tensor, lengths_BK: Tensor, valid_BK: Tensor, *, labels: Literal["hard", "soft"] = "hard", margin: float = 0.0
) -> LengthTerm:
    """The term with the least Bradley-Terry loss beside rewards of 0; weight 0 if no pair differs in length.

    Pairs, labels, weights and margin are those of `bradley_terry_loss`.

    Args:
        lengths_BK: tokens of each response.
    """
    mask_BKK = labelled_pairs(scores_BK, valid_BK, labels)
    score_gap_BKK = differences(torch.where(valid_BK, scores_BK, 0.0).double())
    label_P = label_probabilities(score_gap_BKK, labels)[mask_BKK]
    asked_P = margin * score_gap_BKK[mask_BKK]
    share_P = pair_weights(mask_BKK, torch.float64)[mask_BKK]
    gap_P = differences(lengths_BK.double())[mask_BKK]
    if not gap_P.any():
        return LengthTerm(0.0, 1.0)
    deviation = float(((share_P * gap_P**2).sum() / share_P.sum()).sqrt())  # about 0: a pair has two orders
    scaled_P = torch.tanh(gap_P / deviation)
    low, high = -STEEPEST, STEEPEST
    for _ in range(60):  # the loss is convex: halve towards the sign change of its slope
        middle = (low + high) / 2
        descent = (share_P * scaled_P * (label_P - torch.sigmoid(middle * scaled_P - asked_P))).sum()
        low, high = (middle, high) if descent > 0 else (low, middle)
    return LengthTerm((low + high) / 2, deviation)
