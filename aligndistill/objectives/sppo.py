"""SPPO: self-play preference optimisation (Wu et al. 2024, arXiv:2405.00675).

The loss draws each response's log-ratio to eta times its advantage over the policy that wrote the responses:

    (log(policy_i / reference_i) - eta (P_i - 1/2))^2,    P_i = mean over the prompt's responses j of sigmoid(score_i - score_j)

averaged over a prompt's responses, then over prompts. As in the released code, P_i includes j = i, with 1/2.

The released code estimates P from five answers of the policy and learns from the best and the worst of them; here all responses of
a ranking are learned. Its beta is 1 / eta. Tied responses are drawn to a log-ratio of 0. A prompt with one response costs 0, as
nothing was compared.
"""

import torch

from aligndistill.objectives.inputs import Loss, Ranked, without_padding
from aligndistill.objectives.pairs import differences, reward_metrics


def sppo(ranked: Ranked, *, eta: float = 1000.0) -> Loss:
    """The SPPO loss; `ranked` must have a reference.

    Metrics: see `reward_metrics`; rewards are log-ratio / eta, which a trained policy has at P - 1/2.
    """
    clean = without_padding(ranked)
    assert clean.reference_BK is not None, "SPPO needs the reference's log-probabilities"
    log_ratio_BK = clean.policy_BK - clean.reference_BK
    count_B1 = clean.valid_BK.sum(dim=1, keepdim=True)
    wins_BKK = torch.where(clean.valid_BK.unsqueeze(1), torch.sigmoid(differences(clean.scores_BK)), 0.0)
    win_rate_BK = (wins_BKK.sum(dim=2) / count_B1.clamp(min=1)).to(log_ratio_BK.dtype)
    error_BK = torch.where(clean.valid_BK & (count_B1 > 1), log_ratio_BK - eta * (win_rate_BK - 0.5), 0.0)
    loss_B = error_BK.square().sum(dim=1) / count_B1.squeeze(1).clamp(min=1)
    return Loss(loss_B.mean(), reward_metrics(log_ratio_BK / eta, clean))
