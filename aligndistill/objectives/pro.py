"""PRO: preference ranking optimisation (Song et al. 2023, arXiv:2306.17492).

With responses y^1 ... y^n best first, rewards r, and s_i the policy's mean log-probability per token of y^i,

    L_PRO = -sum_{k<n} log [ exp(s_k / T_k^k) / sum_{i>=k} exp(s_i / T_k^i) ]
    T_k^i = 1 / (r^k - r^i) for i > k,    T_k^k = min over i > k of T_k^i
    L     = L_PRO + beta * L_SFT,    L_SFT = -sum_t log P(y^1_t),    beta = sft_weight * (n - 1)^2

averaged over prompts. `sft_weight` is 0.05 in the released hyper-parameters. L_SFT is a sum over tokens, as released, while s
is a mean: 0.05 weighs more than it looks. With all temperatures 1, L_PRO is Plackett-Luce.

The released code divides by no temperature: it multiplies by gaps g = 1 / T, as we do, which needs no division by a gap of 0.

Ties. The paper's rewards are distinct; verdicts are not. Equal responses share one rank, so that n counts distinct scores:
- a response's negatives are the responses with a strictly lower score (each of them, also when they are tied with each
  other), and g_k is its gap to the worst of them;
- a rank's term is the mean over its members, and the last rank has none.
So an equal response is never a negative and a gap of 0 costs nothing; the released code pays log n without gradient for n equals.
A prompt whose responses are all tied, or that has one, has n = 1: it costs 0, L_SFT included, and counts in the mean over
prompts. Of several best, L_SFT takes the first. Otherwise the order in the row does not matter.

Each term is log(1 + sum_i exp(s_i g_i - s_k g_k)) by logsumexp; the released code exponentiates the products as they are.
"""

import torch

from aligndistill.objectives.inputs import Loss, Ranked, without_padding
from aligndistill.objectives.pairs import best, differences, ordered_pairs, pair_metric


def pro(ranked: Ranked, *, sft_weight: float = 0.05) -> Loss:
    """PRO loss; scores serve as the rewards.

    Metrics: `rank_loss` (L_PRO) and `sft_loss` (L_SFT, without beta); `accuracy`, the share of ordered
    pairs in which the better response has the higher log-probability per token.
    """
    beats_BKK = ordered_pairs(ranked.scores_BK, ranked.valid_BK)
    clean = without_padding(ranked)
    mean_logp_BK = clean.policy_BK / clean.lengths_BK
    gap_BKK = torch.where(beats_BKK, differences(clean.scores_BK), 0.0).to(mean_logp_BK.dtype)

    own_BK = mean_logp_BK * gap_BKK.amax(dim=2)
    negative_BKK = mean_logp_BK.unsqueeze(1) * gap_BKK - own_BK.unsqueeze(2)
    # The diagonal is the response itself: exp(own - own) = 1. Others count only where the response beats them.
    itself_KK = torch.eye(gap_BKK.shape[1], dtype=torch.bool, device=gap_BKK.device)
    logits_BKK = torch.where(beats_BKK, negative_BKK, torch.where(itself_KK, 0.0, -torch.inf))
    term_BK = torch.logsumexp(logits_BKK, dim=2)

    equals_BKK = (clean.scores_BK.unsqueeze(2) == clean.scores_BK.unsqueeze(1)) & clean.valid_BK.unsqueeze(1)
    share_BK = beats_BKK.any(dim=2) / equals_BKK.sum(dim=2).clamp(min=1).to(mean_logp_BK.dtype)
    rank_loss_B = (term_BK * share_BK).sum(dim=1)
    terms_B = share_BK.sum(dim=1)  # n - 1: one for each rank but the last

    sft_loss_B = -best(clean.policy_BK, clean.scores_BK, clean.valid_BK)
    return Loss(
        value=(rank_loss_B + sft_weight * terms_B**2 * sft_loss_B).mean(),
        metrics={
            "rank_loss": rank_loss_B.detach(),
            "sft_loss": sft_loss_B.detach(),
            "accuracy": pair_metric((differences(mean_logp_BK) > 0).to(mean_logp_BK.dtype), beats_BKK),
        },
    )
