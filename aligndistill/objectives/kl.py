"""Estimates of KL(policy || reference) from the log-probabilities of the policy's samples, and the adaptive KL coefficient.

k1 and k3 are Schulman's names ("Approximating KL Divergence", 2020). Summed over a response's tokens both have the KL of whole
responses as their mean. k1 may be negative on a sample; k3 never is, and varies less while the two models are close (further apart,
more).

Shapes: N responses, R tokens each, padded.
"""

import torch
from torch import Tensor

LOG_RATIO_LIMIT = 20.0
"""Log-ratios are clamped to this before `exp`, as OpenRLHF does: e^20 is practically infinite for a probability ratio."""


def k1(policy_NR: Tensor, reference_NR: Tensor) -> Tensor:
    """log(policy / reference) of each token, nats."""
    return policy_NR - reference_NR


def k3(policy_NR: Tensor, reference_NR: Tensor) -> Tensor:
    """reference / policy - 1 - log(reference / policy) of each token, nats; >= 0."""
    log_ratio_NR = (reference_NR - policy_NR).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    return torch.expm1(log_ratio_NR) - log_ratio_NR


def adapted_coefficient(coefficient: float, kl_nats: float, target_nats: float, horizon: int, samples: int) -> float:
    """The KL coefficient after a batch of `samples`, moved towards a KL of `target_nats` per response.

    Ziegler et al. (2019), section 2.2: the relative error, clamped to 0.2, times samples / horizon. A batch counts as at most
    one horizon: otherwise a KL below its target could make the coefficient negative.
    """
    error = min(max(kl_nats / target_nats - 1, -0.2), 0.2)
    return coefficient * (1 + error * min(samples / horizon, 1))
