import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aligndistill.objectives.kl import LOG_RATIO_LIMIT, adapted_coefficient, k1, k3


def random_process(seed: int) -> tuple[Tensor, Tensor]:
    """Log-probabilities of three tokens, and of three more after each: an autoregressive policy over nine responses."""
    generator = torch.Generator().manual_seed(seed)
    first_V = torch.randn(3, generator=generator, dtype=torch.float64).log_softmax(-1)
    second_VV = (2 * torch.randn(3, 3, generator=generator, dtype=torch.float64)).log_softmax(-1)
    return first_V, second_VV


def every_response(process: tuple[Tensor, Tensor]) -> Tensor:
    """(9, 2): the log-probabilities of both tokens of each response."""
    first_V, second_VV = process
    return torch.stack([first_V.repeat_interleave(3), second_VV.flatten()], dim=1)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_mean_of_both_estimates_over_all_responses_is_the_kl_of_responses(seed: int) -> None:
    policy_NR, reference_NR = every_response(random_process(seed)), every_response(random_process(seed + 100))
    of_responses_N = policy_NR.sum(-1).exp()
    assert of_responses_N.sum().item() == pytest.approx(1)
    exact = (of_responses_N * (policy_NR.sum(-1) - reference_NR.sum(-1))).sum().item()
    assert exact > 0.1
    for estimate in (k1, k3):
        found = (of_responses_N * estimate(policy_NR, reference_NR).sum(-1)).sum().item()
        assert found == pytest.approx(exact, rel=1e-12), estimate.__name__
    # And k3 is the one that varies less while the two are close.
    near_NR = policy_NR + 0.1 * (reference_NR - policy_NR)
    spread = {estimate: (of_responses_N * estimate(policy_NR, near_NR).sum(-1) ** 2).sum() for estimate in (k1, k3)}
    assert spread[k3] < 0.1 * spread[k1]


def test_by_hand() -> None:
    policy, reference = torch.tensor([math.log(0.5)]), torch.tensor([math.log(0.25)])
    assert k1(policy, reference).item() == pytest.approx(math.log(2))
    assert k3(policy, reference).item() == pytest.approx(0.5 - 1 - math.log(0.5))


@settings(deadline=None)
@given(st.floats(-1e4, 0, width=32), st.floats(-1e4, 0, width=32))
def test_k3_is_never_negative_and_always_a_number(policy: float, reference: float) -> None:
    value = k3(torch.tensor([policy]), torch.tensor([reference])).item()
    assert 0 <= value <= math.expm1(LOG_RATIO_LIMIT)


@settings(deadline=None)
@given(st.floats(-30, 0, width=32), st.floats(-(2**-10), 2**-10, width=32))
def test_k3_is_not_negative_by_rounding(policy: float, difference: float) -> None:
    policies = torch.full((9,), policy)
    assert bool((k3(policies, policies + difference) >= 0).all())


def test_the_coefficient_moves_towards_the_target_by_a_cut_step() -> None:
    # Twice the target is an error of 1, cut to 0.2; a tenth of the horizon was seen.
    assert adapted_coefficient(0.05, 12.0, 6.0, horizon=1000, samples=100) == pytest.approx(0.05 * 1.02)
    assert adapted_coefficient(0.05, 0.0, 6.0, horizon=1000, samples=100) == pytest.approx(0.05 * 0.98)
    assert adapted_coefficient(0.05, 6.6, 6.0, horizon=1000, samples=100) == pytest.approx(0.05 * 1.01)
    assert adapted_coefficient(0.05, 6.0, 6.0, horizon=1000, samples=100) == 0.05


def test_a_batch_far_beyond_the_horizon_counts_as_one() -> None:
    assert adapted_coefficient(0.05, 0.0, 6.0, horizon=10, samples=1000) == pytest.approx(0.05 * 0.8)
    assert adapted_coefficient(0.05, 99.0, 6.0, horizon=10, samples=1000) == pytest.approx(0.05 * 1.2)
