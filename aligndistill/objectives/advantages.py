"""Advantages of tokens from the scores of responses: KL penalty, generalised advantage estimation, whitening.

All functions apply the mask: padding may have any value, and is 0 in the results.

Shapes: N responses, R tokens each, padded on the right. The value at a token is that of the state before it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from aligndistill.objectives.kl import k1

WHITENING_EPSILON = 1e-8


@dataclass(frozen=True)
class Advantages:
    """The advantage of each token, and its return, the target of the value."""

    advantages_NR: Tensor
    returns_NR: Tensor


def token_rewards(policy_NR: Tensor, reference_NR: Tensor, scores_N: Tensor, mask_NR: Tensor, kl_coefficient: float) -> Tensor:
    """-kl_coefficient * log(policy / reference) at each token, plus the response's score at its last one.

    Ziegler et al. (2019), eq. 2. The released code of the summarisation papers and TRL put the score one place after the last
    token if the row is long enough, and need a second mask for it; here one mask suffices.
    """
    rewards_NR = torch.where(mask_NR, -kl_coefficient * k1(policy_NR, reference_NR), 0.0)
    last_N = mask_NR.sum(-1) - 1
    rows_N = torch.arange(len(last_N), device=last_N.device)
    some_N = last_N >= 0
    rewards_NR[rows_N[some_N], last_N[some_N]] += scores_N[some_N]
    return rewards_NR


def generalised_advantages(rewards_NR: Tensor, values_NR: Tensor, mask_NR: Tensor, gamma: float, gae_lambda: float) -> Advantages:
    """A_t = delta_t + gamma * lambda * A_{t+1} with delta_t = r_t + gamma * V_{t+1} - V_t; V is 0 after the last token.

    Schulman et al. (2015), eq. 16. Returns are A + V, before any whitening.
    """
    rewards_NR = torch.where(mask_NR, rewards_NR, 0.0)
    values_NR = torch.where(mask_NR, values_NR, 0.0)
    advantages_NR = torch.zeros_like(values_NR)
    advantage_N = next_value_N = torch.zeros_like(values_NR[:, 0])
    for t in reversed(range(values_NR.shape[1])):
        delta_N = rewards_NR[:, t] + gamma * next_value_N - values_NR[:, t]
        advantage_N = torch.where(mask_NR[:, t], delta_N + gamma * gae_lambda * advantage_N, 0.0)
        advantages_NR[:, t] = advantage_N
        next_value_N = values_NR[:, t]
    return Advantages(advantages_NR, advantages_NR + values_NR)


def whitened(values_NR: Tensor, mask_NR: Tensor) -> Tensor:
    """Mean 0 and (population) variance 1 over all real tokens together; padding stays 0."""
    count = mask_NR.sum().clamp(min=1)
    mean = torch.where(mask_NR, values_NR, 0.0).sum() / count
    centred_NR = torch.where(mask_NR, values_NR - mean, 0.0)
    variance = (centred_NR**2).sum() / count
    return centred_NR * torch.rsqrt(variance + WHITENING_EPSILON)


def explained_variance(values_NR: Tensor, returns_NR: Tensor, mask_NR: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns) over real tokens: 1 is a perfect critic, 0 a constant, below 0 worse than one."""
    returns, errors = returns_NR[mask_NR], (returns_NR - values_NR)[mask_NR]
    spread = returns.var(unbiased=False)
    return float(1 - errors.var(unbiased=False) / spread) if spread > 0 else 0.0
