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


def step_by_step(demonstrated: Ranked, rationale_weight: float, rationale_share: torch.Tensor) -> Loss:
    """The loss of two tasks: the answer to a prompt, and the reasons for it (Hsieh et al. 2023, arXiv:2305.02301, section 3.2).

        (1 - rationale_weight) * (mean NLL of answer tokens) + rationale_weight * (mean NLL of rationale tokens)

    Each mean is over all tokens of its task in the optimiser step, so long reasons do not outweigh short answers. A task without
    tokens in the step adds nothing.

    Args:
        demonstrated: one response per prompt; its score is 1 for a rationale and 0 for an answer.
        rationale_share: rationale tokens by all response tokens of the whole optimiser step, a scalar in [0, 1]. With it, the value
            is a mean over response tokens like `supervised`: that of the step is the token-weighted mean of its micro-batches.

    Metrics: `answer_nll` and `rationale_nll`, mean NLL per token of each row of the task, nats.
    """
    clean = without_padding(demonstrated)
    is_rationale_BK = clean.scores_BK > 0.5
    share = rationale_share.to(clean.policy_BK.dtype)
    weight_BK = torch.where(
        is_rationale_BK, rationale_weight / share.clamp(min=1e-12), (1 - rationale_weight) / (1 - share).clamp(min=1e-12)
    )
    tokens = torch.where(clean.valid_BK, clean.lengths_BK, 0.0).sum().clamp(min=1)
    nll_B = (-clean.policy_BK / clean.lengths_BK)[:, 0].detach()
    nan = torch.full_like(nll_B, torch.nan)
    metrics = {
        "answer_nll": torch.where(is_rationale_BK[:, 0], nan, nll_B),
        "rationale_nll": torch.where(is_rationale_BK[:, 0], nll_B, nan),
    }
    return Loss(-(weight_BK * clean.policy_BK).sum() / tokens, metrics)
