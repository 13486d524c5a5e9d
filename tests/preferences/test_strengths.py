import math
from itertools import permutations

import choix
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from aligndistill.preferences.strengths import LARGEST_ADVANTAGE, Match, Win, position_logit, strengths


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.8, 0.99])
def test_two_items_differ_by_the_logit_when_the_prior_is_small(probability: float) -> None:
    first, second = strengths(2, [Win(0, 1, probability)], prior=1e-12)
    assert first - second == pytest.approx(math.log(probability / (1 - probability)), abs=1e-8)
    assert first + second == pytest.approx(0)


def test_both_orders_count_as_their_mean() -> None:
    first, second = strengths(2, [Win(0, 1, 0.9), Win(1, 0, 0.4)], prior=1e-12)
    mean = (0.9 + 0.6) / 2
    assert first - second == pytest.approx(math.log(mean / (1 - mean)), abs=1e-8)


def test_the_prior_is_a_tie_with_an_average_opponent() -> None:
    # One sure win: strengths are +s and -s, where the likelihood's slope in s is 0:
    # 2 (1 - sigmoid(2s)) - 2 * prior (sigmoid(s) - 1/2) = 0
    s, minus_s = strengths(2, [Win(0, 1, 1.0)], prior=0.1)
    assert minus_s == pytest.approx(-s)
    assert 1 - 1 / (1 + math.exp(-2 * s)) == pytest.approx(0.1 * (1 / (1 + math.exp(-s)) - 0.5))


def test_never_compared_items_are_average_and_no_items_have_no_strengths() -> None:
    assert strengths(3, []) == [0.0, 0.0, 0.0]
    assert strengths(0, []) == []
    won, lost, unseen = strengths(3, [Win(0, 1, 1.0)])
    assert won > unseen == pytest.approx(0, abs=1e-12)
    assert unseen > lost


@pytest.mark.parametrize("prior", [1e-9, 1e-3, 0.1, 10.0])
def test_an_undefeated_item_is_finite_and_first(prior: float) -> None:
    sure = [Win(i, j, 1.0) for i in range(5) for j in range(i + 1, 5)]
    values = strengths(5, sure, prior)
    assert all(math.isfinite(value) for value in values)
    assert values == sorted(values, reverse=True)


def test_lopsided_counts_on_which_full_newton_steps_run_away() -> None:
    counts = [(3, 0, 100), (3, 2, 10), (4, 2, 100), (0, 5, 1001), (5, 4, 1)]
    values = strengths(6, [Win(i, j, 1.0) for i, j, count in counts for _ in range(count)])
    assert values[3] > values[0] > values[5] > values[4] > values[2]


def test_a_circle_is_a_tie() -> None:
    assert strengths(3, [Win(0, 1, 1.0), Win(1, 2, 1.0), Win(2, 0, 1.0)]) == pytest.approx([0, 0, 0], abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_choix_finds_the_same_strengths(seed: int) -> None:
    # choix knows whole wins only: a probability of k/4 is k wins and 4-k defeats among four. A prior of 2 is then 4 wins and 4
    # defeats against one more item. Its strength is free in choix, which moves all strengths alike.
    generator = np.random.default_rng(seed)
    n = 5
    quarters = [(i, j, int(generator.integers(0, 5))) for i in range(n) for j in range(n) if i != j and generator.random() < 0.7]
    data = [pair for i, j, k in quarters for pair in [(i, j)] * k + [(j, i)] * (4 - k)]
    data += [pair for i in range(n) for pair in [(i, n), (n, i)] * 4]
    for params in (choix.ilsr_pairwise(n + 1, data), choix.opt_pairwise(n + 1, data, alpha=0, tol=1e-12)):
        ours = strengths(n, [Win(i, j, k / 4) for i, j, k in quarters], prior=8 / 4)
        assert ours == pytest.approx(list(params[:n] - params[:n].mean()), abs=1e-6)


comparisons = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 3), st.floats(0, 1)).filter(lambda win: win[0] != win[1]), max_size=20
)


@given(comparisons)
def test_order_names_and_direction_do_not_matter(wins: list[tuple[int, int, float]]) -> None:
    values = strengths(4, [Win(*win) for win in wins])
    assert sum(values) == pytest.approx(0, abs=1e-9)
    assert strengths(4, [Win(j, i, 1 - p) for i, j, p in reversed(wins)]) == pytest.approx(values, abs=1e-6)
    assert strengths(4, [Win(3 - i, 3 - j, p) for i, j, p in wins]) == pytest.approx(values[::-1], abs=1e-6)


def test_a_probability_out_of_range_is_our_mistake() -> None:
    with pytest.raises(AssertionError):
        strengths(2, [Win(0, 1, 1.2)])
    with pytest.raises(AssertionError):
        strengths(2, [Win(0, 0, 0.5)])
    with pytest.raises(AssertionError):
        strengths(2, [Win(0, 1, 0.5)], prior=0)


# ------------------------------------------------------------------------------------- what being shown first is worth


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def matches(advantage: float, seed: int, one_order: bool) -> list[Match]:
    """Comparisons without noise: each probability is what the model says."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(20):
        strength = generator.normal(size=4)
        pairs = [(i, j) if generator.random() < 0.5 else (j, i) for i in range(4) for j in range(i + 1, 4)]
        shown = pairs if one_order else [*pairs, *((j, i) for i, j in pairs)]
        found.append(Match(4, [Win(i, j, sigmoid(strength[i] - strength[j] + advantage)) for i, j in shown]))
    return found


@pytest.mark.parametrize("one_order", [True, False])
@pytest.mark.parametrize("advantage", [-1.5, 0.0, 0.7])
def test_the_advantage_that_comparisons_were_made_with_is_found(advantage: float, one_order: bool) -> None:
    assert position_logit(matches(advantage, 0, one_order), prior=1e-6) == pytest.approx(advantage, abs=2e-3)


def test_scipy_finds_the_same_advantage() -> None:
    """The likelihood of Davidson and Beaver (1977), written out, with all parameters free at once."""
    generator = np.random.default_rng(3)
    made = [
        Match(3, [Win(i, j, float(generator.random())) for i in range(3) for j in range(3) if i != j and generator.random() < 0.7])
        for _ in range(6)
    ]
    prior = 0.1

    def cost(parameters: np.ndarray) -> float:
        advantage, strength_CK = parameters[0], parameters[1:].reshape(6, 3)
        total = prior / 2 * (np.logaddexp(0, advantage) + np.logaddexp(0, -advantage))
        for strength, match_ in zip(strength_CK, made, strict=True):
            total += prior / 2 * (np.logaddexp(0, strength) + np.logaddexp(0, -strength)).sum()
            for i, j, p in match_.wins:
                gap = strength[i] - strength[j] + advantage
                total += p * np.logaddexp(0, -gap) + (1 - p) * np.logaddexp(0, gap)
        return float(total)

    found = minimize(cost, np.zeros(19), method="BFGS", options={"gtol": 1e-7})
    assert position_logit(made, prior) == pytest.approx(found.x[0], abs=2e-3)


def test_a_judge_that_always_says_first_has_a_finite_advantage() -> None:
    always = [Match(3, [Win(0, 1, 1.0), Win(1, 2, 1.0), Win(2, 0, 1.0), Win(1, 0, 1.0)]) for _ in range(5)]
    assert 2 < position_logit(always) <= LARGEST_ADVANTAGE


def test_the_advantage_is_taken_off_where_one_order_was_asked_and_only_there() -> None:
    first, second = strengths(2, [Win(0, 1, sigmoid(1.2))], prior=1e-9, position_logit=0.5)
    assert first - second == pytest.approx(0.7, abs=1e-6)
    both = [Win(0, 1, 0.9), Win(1, 0, 0.4)]
    assert strengths(2, both, position_logit=0.5) == strengths(2, both)


def test_sure_verdicts_and_an_extreme_advantage_leave_newton_a_curvature_to_go_by() -> None:
    """A tournament of 16 by merge sort, in both orders, as sure as a judge can be."""
    generator = np.random.default_rng(0)
    made = []
    for _ in range(20):
        quality = generator.normal(scale=40, size=16)
        pairs = [(i, j) for i, j in permutations(range(16), 2) if abs(i - j) <= 2]
        made.append(Match(16, [Win(i, j, sigmoid(max(-700.0, quality[i] - quality[j]))) for i, j in pairs]))
    assert abs(position_logit(made)) < 1
    for match_ in made:
        assert all(math.isfinite(one) for one in strengths(16, match_.wins, prior=1e-9, position_logit=LARGEST_ADVANTAGE))
