"""The reward model's loss: Bradley-Terry over all pairs of a prompt's responses.

With d_ij = reward_i - reward_j + term_ij - margin * (score_i - score_j) and p_ij the label,

    loss = mean over prompts of [ mean over the prompt's pairs of
             -(p_ij log sigmoid(d_ij) + (1 - p_ij) log sigmoid(-d_ij)) + centering * (reward_i + reward_j)^2 ]

- All pairs of one prompt together, weighted 1 / their number: Ouyang et al. 2022 (InstructGPT, arXiv:2203.02155), eq. 1.
- Hard labels: the pairs have score_i > score_j, and p = 1. Soft labels: p = sigmoid(score_i - score_j), the teacher's
  probability, as Lee et al. 2023 (RLAIF, arXiv:2309.00267) train theirs; tied responses are a pair too, with p = 1/2.
- Margin: Touvron et al. 2023 (Llama 2, arXiv:2307.09288), eq. 2, with the teacher's score difference as the margin.
- Term: what is known of the preference without the reward (see `length_bias`); none by default.
- Centering: as `center_rewards_coefficient` of TRL's RewardTrainer, which this equals for two responses per prompt.

A prompt without a pair adds nothing, and counts in the mean over prompts.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from aligndistill.objectives.inputs import Loss
from aligndistill.objectives.pairs import (
    differences,
    label_probabilities,
    labelled_pairs,
    mean_over_pairs,
    ordered_pairs,
    pair_metric,
)


def bradley_terry_loss(
    rewards_BK: Tensor,
    scores_BK: Tensor,
    valid_BK: Tensor,
    *,
    labels: Literal["hard", "soft"] = "hard",
    margin: float = 0.0,
    centering: float = 0.0,
    term_BKK: Tensor | None = None,
    weight_B: Tensor | None = None,
) -> Loss:
    """Bradley-Terry loss of rewards against the teacher's scores (logit scale).

    Metrics, of the rewards without the term: `accuracy`, the share of ordered pairs in which the better response has the higher
    reward; `margin`, the mean reward difference of ordered pairs.

    Args:
        term_BKK: added to the logit of each pair; the term of (j, i) is minus that of (i, j).
        weight_B: multiplies each prompt's loss, which is still divided by the number of prompts.
    """
    mask_BKK = ordered_pairs(scores_BK, valid_BK)
    rewards_BK = torch.where(valid_BK, rewards_BK, 0.0)
    reward_gap_BKK = differences(rewards_BK)
    score_gap_BKK = differences(torch.where(valid_BK, scores_BK, 0.0)).to(rewards_BK.dtype)
    label_BKK = label_probabilities(score_gap_BKK, labels)
    logit_BKK = reward_gap_BKK - margin * score_gap_BKK
    if term_BKK is not None:
        logit_BKK = logit_BKK + term_BKK
    loss_BKK = -(label_BKK * logsigmoid(logit_BKK) + (1 - label_BKK) * logsigmoid(-logit_BKK))
    centre_BKK = (rewards_BK.unsqueeze(2) + rewards_BK.unsqueeze(1)) ** 2
    whole_BKK = loss_BKK + centering * centre_BKK
    if weight_B is not None:
        whole_BKK = whole_BKK * weight_B[:, None, None]
    return Loss(
        value=mean_over_pairs(whole_BKK, labelled_pairs(scores_BK, valid_BK, labels)),
        metrics={
            "accuracy": pair_metric((reward_gap_BKK > 0).to(rewards_BK.dtype), mask_BKK),
            "margin": pair_metric(reward_gap_BKK, mask_BKK),
        },
    )
