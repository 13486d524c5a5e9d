"""Arithmetic on ordered pairs, shared by the offline objectives.

Padded slots may have any value, even inf and nan: objectives read them only through `without_padding`, so their gradients
are exactly zero. Every loss is a mean over prompts, so micro-batches of equal size average to the batch's loss.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from aligndistill.objectives.inputs import Loss, Ranked


def ordered_pairs(scores_BK: Tensor, valid_BK: Tensor) -> Tensor:
    """mask_BKK: [b, i, j] is True where both responses are real and i has strictly the higher score. Ties are not pairs."""
    both_valid_BKK = valid_BK.unsqueeze(2) & valid_BK.unsqueeze(1)
    return both_valid_BKK & (scores_BK.unsqueeze(2) > scores_BK.unsqueeze(1))


def labelled_pairs(scores_BK: Tensor, valid_BK: Tensor, labels: Literal["hard", "soft"]) -> Tensor:
    """mask_BKK of the pairs that have a label: the ordered ones and, with soft labels, each tied pair once.

    A soft label of a tie is P = 1/2, which a hard label cannot express.
    """
    mask_BKK = ordered_pairs(scores_BK, valid_BK)
    if labels == "hard":
        return mask_BKK
    both_valid_BKK = valid_BK.unsqueeze(2) & valid_BK.unsqueeze(1)
    tied_BKK = both_valid_BKK & (scores_BK.unsqueeze(2) == scores_BK.unsqueeze(1))
    return mask_BKK | tied_BKK.triu(diagonal=1)  # a tie costs the same in either direction


def label_probabilities(score_gap_BKK: Tensor, labels: Literal["hard", "soft"]) -> Tensor:
    """label_BKK: the probability that i is better than j: 1 (hard), or the teacher's, sigmoid(score_i - score_j) (soft)."""
    return torch.sigmoid(score_gap_BKK) if labels == "soft" else torch.ones_like(score_gap_BKK)


def differences(values_BK: Tensor) -> Tensor:
    """[b, i, j] = values[b, i] - values[b, j]."""
    return values_BK.unsqueeze(2) - values_BK.unsqueeze(1)


def pair_weights(mask_BKK: Tensor, dtype: torch.dtype) -> Tensor:
    """1 / (the prompt's number of pairs) at each of them, 0 elsewhere: all zeros for a prompt without any."""
    count_B11 = mask_BKK.sum(dim=(1, 2), keepdim=True)
    return mask_BKK.to(dtype) / count_B11.clamp(min=1)


def mean_over_pairs(values_BKK: Tensor, mask_BKK: Tensor) -> Tensor:
    """The mean over each prompt's pairs, then over all B prompts; a prompt without pairs adds 0 and counts in B."""
    return _mean_of_each(values_BKK, mask_BKK).mean()


def sigmoid_loss(values_BK: Tensor, clean: Ranked, labels: Literal["hard", "soft"], margin: float = 0.0) -> Tensor:
    """The mean over prompts of the mean over each prompt's labelled pairs of p cost(i over j) + (1 - p) cost(j over i).

    With cost(i over j) = -log sigmoid(value_i - value_j - margin), and p of `label_probabilities`.

    Args:
        clean: a batch after `without_padding`, as are the values.
    """
    gap_BKK = differences(values_BK)
    label_BKK = label_probabilities(differences(clean.scores_BK).to(values_BK.dtype), labels)
    loss_BKK = -(label_BKK * logsigmoid(gap_BKK - margin) + (1 - label_BKK) * logsigmoid(-gap_BKK - margin))
    return mean_over_pairs(loss_BKK, labelled_pairs(clean.scores_BK, clean.valid_BK, labels))


def with_sft(loss: Loss, clean: Ranked, weight: float) -> Loss:
    """The loss plus the weighted negative log-likelihood per token of each prompt's best response, nats.

    Of several best the first is taken; a prompt without an ordered pair has no chosen response and adds 0. The metric `sft_loss` is
    unweighted, and absent where the weight is 0.
    """
    if not weight:
        return loss
    mean_logp_BK = clean.policy_BK / clean.lengths_BK
    has_pair_B = ordered_pairs(clean.scores_BK, clean.valid_BK).any(dim=(1, 2))
    sft_loss_B = torch.where(has_pair_B, -best(mean_logp_BK, clean.scores_BK, clean.valid_BK), 0.0)
    return Loss(loss.value + weight * sft_loss_B.mean(), {**loss.metrics, "sft_loss": sft_loss_B.detach()})


def reward_metrics(rewards_BK: Tensor, clean: Ranked) -> dict[str, Tensor]:
    """TRL's metrics over ordered pairs, one number per prompt.

    `rewards/chosen`, `rewards/rejected`, `rewards/accuracies`, `rewards/margins`; `logps/chosen` and `logps/rejected`, the summed
    log-probabilities, nats.
    """
    mask_BKK = ordered_pairs(clean.scores_BK, clean.valid_BK)
    gap_BKK = differences(rewards_BK)
    return {
        "rewards/chosen": pair_metric(rewards_BK.unsqueeze(2).expand_as(mask_BKK), mask_BKK),
        "rewards/rejected": pair_metric(rewards_BK.unsqueeze(1).expand_as(mask_BKK), mask_BKK),
        "rewards/accuracies": pair_metric((gap_BKK > 0).to(rewards_BK.dtype), mask_BKK),
        "rewards/margins": pair_metric(gap_BKK, mask_BKK),
        "logps/chosen": pair_metric(clean.policy_BK.unsqueeze(2).expand_as(mask_BKK), mask_BKK),
        "logps/rejected": pair_metric(clean.policy_BK.unsqueeze(1).expand_as(mask_BKK), mask_BKK),
    }


def pair_metric(values_BKK: Tensor, mask_BKK: Tensor) -> Tensor:
    """metric_B: the mean over each prompt's pairs, detached; nan for a prompt without any."""
    return torch.where(mask_BKK.any(dim=(1, 2)), _mean_of_each(values_BKK.detach(), mask_BKK), torch.nan)


def _mean_of_each(values_BKK: Tensor, mask_BKK: Tensor) -> Tensor:
    """mean_B over each prompt's pairs, 0 for a prompt without any."""
    safe_BKK = torch.where(mask_BKK, values_BKK, 0.0)
    return (safe_BKK * pair_weights(mask_BKK, values_BKK.dtype)).sum(dim=(1, 2))


def best(values_BK: Tensor, scores_BK: Tensor, valid_BK: Tensor) -> Tensor:
    """values_B of each prompt's best response; of several with the best score, the first."""
    index_B1 = torch.where(valid_BK, scores_BK, -torch.inf).argmax(dim=1, keepdim=True)
    return values_BK.gather(1, index_B1).squeeze(1)
