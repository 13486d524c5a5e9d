"""RRHF: rank responses to align language models with human feedback (Yuan et al. 2023, arXiv:2304.05302), eq. 1 to 5.

    p_i    = sum_t log P(y_i,t | x, y_i,<t) / |y_i|          (1)  mean log-probability per token, nats
    L_rank = sum over r_i < r_j of max(0, p_i - p_j)         (2)  a sum over pairs, no margin
    i'     = argmax r                                        (3)  of several best, the first
    L_ft   = -sum_t log P(y_i',t | x, y_i',<t)               (4)  a sum over tokens
    L      = L_rank + sft_weight * L_ft                      (5)  sft_weight 1 in the paper

averaged over prompts. Tied responses make no pair.

The released code (GanjinZero/RRHF, train.py) departs from its paper; this does not follow it where:
- `gather_logits_labels` sets the labels' padding mark to 0 in place, so `get_score` divides by the padded length of the batch
  and the ranking is not length-normalised (issues 37, 42);
- `rrhf_loss` ends in `[0]`, which is correct only for scores of shape [1, k]: flat scores lose pairs (issue 29), and two prompts
  at once fail;
- `sft_loss` takes the mean over the padded length instead of eq. 4's sum, so the weight of L_ft depends on its neighbours
  (issue 51).
"""

import torch

from aligndistill.objectives.inputs import Loss, Ranked, without_padding
from aligndistill.objectives.pairs import best, differences, ordered_pairs, pair_metric


def rrhf(ranked: Ranked, *, sft_weight: float = 1.0) -> Loss:
    """RRHF loss.

    Metrics: `rank_loss` and `sft_loss` (unweighted); `accuracy`, the share of ordered pairs in which the
    better response has the higher log-probability per token.
    """
    mask_BKK = ordered_pairs(ranked.scores_BK, ranked.valid_BK)
    clean = without_padding(ranked)
    gap_BKK = differences(clean.policy_BK / clean.lengths_BK)
    rank_loss_B = torch.where(mask_BKK, torch.relu(-gap_BKK), 0.0).sum(dim=(1, 2))
    sft_loss_B = -best(clean.policy_BK, clean.scores_BK, clean.valid_BK)
    return Loss(
        value=rank_loss_B.mean() + sft_weight * sft_loss_B.mean(),
        metrics={
            "rank_loss": rank_loss_B.detach(),
            "sft_loss": sft_loss_B.detach(),
            "accuracy": pair_metric((gap_BKK > 0).to(gap_BKK.dtype), mask_BKK),
        },
    )
