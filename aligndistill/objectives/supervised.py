"""Supervised fine-tuning: the mean negative log-likelihood per token of the demonstrated responses, nats.

The mean is over all response tokens together, as in TRL's SFTTrainer and most others, so a long demonstration counts more than a
short one. (`best_of_n` gives every prompt the same weight instead, as every objective on rankings does.)
"""

import torch

from aligndistill.objectives.inputs import Loss, Ranked, without_padding


def supervised(demonstrated: Ranked) -> Loss:
    """The loss of demonstrations, one response per prompt."""
    clean = without_padding(demonstrated)
    tokens = torch.where(clean.valid_BK, clean.lengths_BK, 0.0).sum()
    return Loss(-clean.policy_BK.sum() / tokens.clamp(min=1), {})
