"""Direct preference optimisation over all pairs of a prompt's responses.

With the implicit reward r_i = beta * log(policy_i / reference_i) and d = r_i - r_j for score_i > score_j, one pair costs

    sigmoid        -log sigmoid(d)                  Rafailov et al. 2023 (arXiv:2305.18290), eq. 7
    sigmoid_norm   -log sigmoid(beta h)             Lambert et al. 2024 (Tülu 3, arXiv:2411.15124), length-normalised DPO
    hinge          max(0, 1 - d)                    Zhao et al. 2023 (SLiC-HF, arXiv:2305.10425), on log-ratios as in TRL
    ipo            (h - 1 / (2 beta))^2             Azar et al. 2023 (arXiv:2310.12036), eq. 17; beta is the paper's tau

where h is the difference of the log-ratios per token: each is divided by its response's length. IPO's paper writes summed
log-ratios; TRL divides, and reports that IPO's authors confirmed that their results used that form. This follows TRL.

An uncertain label mixes both directions: p * cost(i over j) + (1 - p) * cost(j over i), with p = 1 (hard) or
sigmoid(score_i - score_j) (soft: the teacher's probability), then p <- (1 - label_smoothing) * p + label_smoothing * (1 - p).
With hard labels and the sigmoid that is conservative DPO (Mitchell 2023), as in the authors' `preference_loss`. TRL 1.16 has no
smoothing for these losses.

Tied responses make a pair only with soft labels: the teacher's probability is 1/2 then, so the two implicit rewards
should be equal. The pair is counted once, since both directions cost the same.

The loss is the mean over a prompt's pairs, then over prompts; a prompt without a pair adds nothing and counts in that mean.

With `sft_weight` it also has that weight times the negative log-likelihood per token of each prompt's best response: RPO (Pang et
al. 2024, Iterative RPO, arXiv:2404.19733), whose alpha it is.

`logps/chosen` may fall in a healthy run: the loss depends on the difference alone, and lowering the rejected response often lowers
the chosen one too, since two answers to one prompt have much in common. It is a warning sign if held-out quality falls as well.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from aligndistill.objectives.inputs import Loss, Ranked, without_padding
from aligndistill.objectives.pairs import (
    differences,
    label_probabilities,
    labelled_pairs,
    mean_over_pairs,
    reward_metrics,
    with_sft,
)

DpoLoss = Literal["sigmoid", "sigmoid_norm", "ipo", "hinge"]
"""What a pair costs: TRL's names."""


def dpo(
    ranked: Ranked,
    *,
    beta: float,
    loss: DpoLoss = "sigmoid",
    labels: Literal["hard", "soft"] = "hard",
    label_smoothing: float = 0.0,
    sft_weight: float = 0.0,
) -> Loss:
    """The DPO loss; `ranked` must have a reference.

    Metrics: see `reward_metrics`; rewards are beta * log-ratio, nats. With `sft_weight` also `sft_loss` (see `with_sft`).
    """
    clean = without_padding(ranked)
    assert clean.reference_BK is not None, "DPO needs the reference's log-probabilities"
    log_ratio_BK = clean.policy_BK - clean.reference_BK
    reward_BK = beta * log_ratio_BK

    per_token_BKK = differences(log_ratio_BK / clean.lengths_BK)
    logit_BKK = {"ipo": per_token_BKK, "sigmoid_norm": beta * per_token_BKK}.get(loss, differences(reward_BK))
    probability_BKK = label_probabilities(differences(clean.scores_BK).to(logit_BKK.dtype), labels)
    label_BKK = (1 - label_smoothing) * probability_BKK + label_smoothing * (1 - probability_BKK)
    loss_BKK = label_BKK * _cost(logit_BKK, loss, beta) + (1 - label_BKK) * _cost(-logit_BKK, loss, beta)
    value = mean_over_pairs(loss_BKK, labelled_pairs(clean.scores_BK, clean.valid_BK, labels))
    return with_sft(Loss(value, reward_metrics(reward_BK, clean)), clean, sft_weight)


def _cost(logit_BKK: Tensor, loss: DpoLoss, beta: float) -> Tensor:
    match loss:
        case "sigmoid" | "sigmoid_norm":
            return -logsigmoid(logit_BKK)
        case "hinge":
            return torch.relu(1 - logit_BKK)
        case "ipo":
            return (logit_BKK - 1 / (2 * beta)) ** 2
