import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aligndistill.objectives.advantages import explained_variance, generalised_advantages, token_rewards, whitened

NAN, INF = math.nan, math.inf
MASK_NR = torch.tensor([[True, True, True], [True, False, False]])


def test_rewards_are_the_penalty_at_each_token_and_the_score_at_the_last() -> None:
    policy_NR = torch.tensor([[-1.0, -2.0, -3.0], [-0.5, NAN, INF]])
    reference_NR = torch.tensor([[-1.5, -2.0, -1.0], [-1.5, INF, INF]])
    rewards_NR = token_rewards(policy_NR, reference_NR, torch.tensor([10.0, -1.0]), MASK_NR, kl_coefficient=0.1)
    # log-ratios 0.5, 0, -2 and 1
    torch.testing.assert_close(rewards_NR, torch.tensor([[-0.05, 0.0, 10.2], [-1.1, 0.0, 0.0]]))


def test_a_response_that_does_not_count_gets_nothing() -> None:
    ones_NR = torch.ones(2, 2)
    mask_NR = torch.tensor([[False, False], [True, True]])
    rewards_NR = token_rewards(ones_NR, ones_NR, torch.tensor([5.0, 7.0]), mask_NR, kl_coefficient=0.1)
    assert rewards_NR.tolist() == [[0.0, 0.0], [0.0, 7.0]]


def test_generalised_advantages_by_hand() -> None:
    rewards_NR = torch.tensor([[1.0, 0.0, 2.0], [3.0, NAN, INF]])
    values_NR = torch.tensor([[0.5, 1.0, -1.0], [1.0, INF, NAN]])
    found = generalised_advantages(rewards_NR, values_NR, MASK_NR, gamma=0.9, gae_lambda=0.5)
    # deltas of the first row: 1 + 0.9 * 1 - 0.5 = 1.4;  0 + 0.9 * -1 - 1 = -1.9;  2 - -1 = 3
    third = 3.0
    second = -1.9 + 0.45 * third  # -0.55
    first = 1.4 + 0.45 * second  # 1.1525
    torch.testing.assert_close(found.advantages_NR, torch.tensor([[first, second, third], [2.0, 0.0, 0.0]]))
    torch.testing.assert_close(found.returns_NR, torch.tensor([[first + 0.5, second + 1.0, 2.0], [3.0, 0.0, 0.0]]))


def by_definition(rewards_R: Tensor, values_R: Tensor, gamma: float, gae_lambda: float) -> list[float]:
    """The sum of eq. 16, term by term."""
    after_R = torch.cat([values_R[1:], torch.zeros(1)])
    deltas = (rewards_R + gamma * after_R - values_R).tolist()
    count = len(deltas)
    return [sum((gamma * gae_lambda) ** step * deltas[t + step] for step in range(count - t)) for t in range(count)]


@settings(deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.floats(0.5, 1), st.floats(0, 1), st.sampled_from([NAN, INF, 7.0]))
def test_advantages_are_their_definition_for_each_row_alone(
    lengths: list[int], gamma: float, gae_lambda: float, padding: float
) -> None:
    generator = torch.Generator().manual_seed(sum(lengths))
    mask_NR = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    rewards_NR, values_NR = (torch.randn(mask_NR.shape, generator=generator).masked_fill(~mask_NR, padding) for _ in range(2))
    found = generalised_advantages(rewards_NR, values_NR, mask_NR, gamma, gae_lambda)
    for n, length in enumerate(lengths):
        expected = by_definition(rewards_NR[n, :length], values_NR[n, :length], gamma, gae_lambda)
        assert found.advantages_NR[n, :length].tolist() == pytest.approx(expected, rel=1e-4, abs=1e-4)
        assert not found.advantages_NR[n, length:].any()
        assert not found.returns_NR[n, length:].any()


def test_the_ends_of_lambda_are_the_rest_of_the_rewards_and_one_step() -> None:
    rewards_NR, values_NR = torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[0.3, 0.2, 0.1]])
    everything_NR = torch.ones(1, 3, dtype=torch.bool)
    to_the_end = generalised_advantages(rewards_NR, values_NR, everything_NR, gamma=1.0, gae_lambda=1.0)
    torch.testing.assert_close(to_the_end.returns_NR, torch.tensor([[7.0, 6.0, 4.0]]))
    one_step = generalised_advantages(rewards_NR, values_NR, everything_NR, gamma=1.0, gae_lambda=0.0)
    torch.testing.assert_close(one_step.returns_NR, torch.tensor([[1.2, 2.1, 4.0]]))


def test_whitening_by_hand_over_real_tokens_only() -> None:
    found_NR = whitened(torch.tensor([[1.0, 3.0, 5.0], [7.0, NAN, INF]]), MASK_NR)
    deviation = math.sqrt((9 + 1 + 1 + 9) / 4)
    expected = torch.tensor([[-3 / deviation, -1 / deviation, 1 / deviation], [3 / deviation, 0.0, 0.0]])
    torch.testing.assert_close(found_NR, expected)


@settings(deadline=None)
@given(st.floats(0.1, 100), st.floats(-100, 100))
def test_whitening_takes_away_scale_and_place(scale: float, place: float) -> None:
    values_NR = torch.randn(4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mask_NR = torch.arange(5) < torch.tensor([5, 1, 3, 2]).unsqueeze(1)
    torch.testing.assert_close(whitened(values_NR * scale + place, mask_NR), whitened(values_NR, mask_NR), rtol=1e-4, atol=1e-6)
    real = whitened(values_NR, mask_NR)[mask_NR]
    assert real.mean().item() == pytest.approx(0, abs=1e-12)
    assert real.var(unbiased=False).item() == pytest.approx(1, rel=1e-6)


def test_whitening_of_equal_values_or_of_none_is_nothing() -> None:
    assert whitened(torch.full((2, 3), 4.0), MASK_NR).tolist() == [[0.0] * 3] * 2
    assert whitened(torch.full((2, 3), NAN), torch.zeros(2, 3, dtype=torch.bool)).tolist() == [[0.0] * 3] * 2


def test_explained_variance() -> None:
    returns_NR = torch.tensor([[1.0, 2.0, 3.0], [6.0, NAN, INF]])
    assert explained_variance(returns_NR, returns_NR, MASK_NR) == 1
    assert explained_variance(torch.full((2, 3), 9.0), returns_NR, MASK_NR) == pytest.approx(0)
    # Errors 1, 2, 3, 6 minus 2, 2, 2, 4 are -1, 0, 1, 2: variance 1.25 of 3.5.
    values_NR = torch.tensor([[2.0, 2.0, 2.0], [4.0, INF, NAN]])
    assert explained_variance(values_NR, returns_NR, MASK_NR) == pytest.approx(1 - 1.25 / 3.5)
    assert explained_variance(-returns_NR, returns_NR, MASK_NR) == pytest.approx(-3)
    assert explained_variance(values_NR, torch.full((2, 3), 5.0), MASK_NR) == 0  # nothing to explain
