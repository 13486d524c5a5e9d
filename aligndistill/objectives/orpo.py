"""ORPO: odds-ratio preference optimisation without a reference (Hong et al. 2024, arXiv:2403.07691), eq. 4 to 7.

With l_i the policy's mean log-probability per token of response i and its log-odds o_i = l_i - log(1 - exp(l_i)),

    L = NLL of the best response + odds_weight * mean over pairs of -log sigmoid(o_i - o_j)        for score_i > score_j

averaged over prompts. The NLL is per token of the response. (TRL's runs over prompt and response together, as the released code's
does unless it is told otherwise; the prompt's log-probabilities are not computed here.)

log(1 - exp(l)) is log(-expm1(l)) near 0 and log1p(-exp(l)) elsewhere: either alone loses all digits on the other side of log 1/2.
l is at most -1e-6, beyond which the odds have no gradient: a response that certain needs no more.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from aligndistill.objectives.inputs import Loss, Ranked, without_padding
from aligndistill.objectives.pairs import reward_metrics, sigmoid_loss, with_sft

LARGEST_LOGP = -1e-6
"""Nats per token; above it float32 cannot tell the odds from infinite ones."""


def orpo(ranked: Ranked, *, odds_weight: float = 0.1, labels: Literal["hard", "soft"] = "hard") -> Loss:
    """The ORPO loss; soft labels as in `dpo.py`.

    Metrics: see `reward_metrics`; rewards are odds_weight * l, as in TRL. `sft_loss` is the NLL (see `with_sft`).
    """
    clean = without_padding(ranked)
    mean_logp_BK = clean.policy_BK / clean.lengths_BK
    odds_loss = sigmoid_loss(log_odds(mean_logp_BK), clean, labels)
    metrics = reward_metrics(odds_weight * mean_logp_BK, clean)
    return with_sft(Loss(odds_weight * odds_loss, metrics), clean, 1.0)


def log_odds(logp: Tensor) -> Tensor:
    """log(p / (1 - p)) of probabilities given by their logarithms, any shape; finite for every logarithm up to 0."""
    logp = logp.clamp(max=LARGEST_LOGP)
    near_one = logp > -math.log(2)
    # Each branch is given only what it can take: a gradient through the other one would be nan times 0.
    small = torch.log(-torch.expm1(torch.where(near_one, logp, -1.0)))
    large = torch.log1p(-torch.exp(torch.where(near_one, -1.0, logp)))
    return logp - torch.where(near_one, small, large)
