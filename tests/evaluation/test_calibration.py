import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligndistill.evaluation.calibration import (
    LengthGapBin,
    accuracy,
    accuracy_by_length_gap,
    expected_calibration_error,
    longer_baseline,
    preference_metrics,
    reliability,
)


def test_accuracy_counts_ties_half():
    assert accuracy([2.0, 0.1, -1.0, 0.0]) == pytest.approx(2.5 / 4)


def test_longer_wins_counts_equal_lengths_half():
    assert longer_baseline([5, -2, 0, 1, 1]) == pytest.approx(3.5 / 5)


def test_calibration_error_by_hand():
    # Two bins, [0.5, 0.75) and [0.75, 1]. First: confidences 0.6 (right) and 0.7 (wrong): |0.65 - 0.5| = 0.15.
    # Second: 0.9 (right) and, as 0.2, 0.8 for the other one (wrong): |0.85 - 0.5| = 0.35. Two pairs each.
    error = expected_calibration_error([0.6, 0.7, 0.9, 0.2], [1, 0, 1, 1], bins=2)
    assert error == pytest.approx(0.25)


def test_certain_and_right_or_wrong():
    assert expected_calibration_error([1.0, 0.0], [1, 0]) == 0.0
    assert expected_calibration_error([1.0, 0.0], [0, 1]) == 1.0
    assert expected_calibration_error([0.5], [1]) == 0.0  # no preference is half right, and half sure


pairs = st.lists(st.tuples(st.floats(0, 1), st.sampled_from([0, 0.5, 1])), min_size=1, max_size=30)


@given(pairs)
def test_swapping_the_two_answers_changes_nothing(rows):
    probabilities, outcomes = map(np.array, zip(*rows, strict=True))
    # 1 - p is not exact, so stay clear of bin edges: they are multiples of 0.05.
    probabilities = np.round(probabilities, 2) * 0.98 + 0.007
    swapped = expected_calibration_error(1 - probabilities, 1 - outcomes)
    assert swapped == pytest.approx(expected_calibration_error(probabilities, outcomes))


@given(pairs)
def test_bins_add_up_to_the_error(rows):
    probabilities, outcomes = map(np.array, zip(*rows, strict=True))
    bins = reliability(probabilities, outcomes)
    assert sum(bin.count for bin in bins) == len(rows)
    assert all(bin.low - 1e-9 <= bin.confidence <= bin.high + 1e-9 for bin in bins)
    weighted = sum(bin.count * abs(bin.confidence - bin.accuracy) for bin in bins) / len(rows)
    assert weighted == pytest.approx(expected_calibration_error(probabilities, outcomes))


def test_calibrated_probabilities_have_a_small_error_and_overconfident_ones_do_not():
    generator = np.random.default_rng(0)
    logits = generator.normal(size=40_000)
    outcomes = generator.random(40_000) < 1 / (1 + np.exp(-logits))
    assert expected_calibration_error(1 / (1 + np.exp(-logits)), outcomes) < 0.01
    assert expected_calibration_error(1 / (1 + np.exp(-4 * logits)), outcomes) > 0.15


def test_accuracy_by_length_gap_by_hand():
    bins = accuracy_by_length_gap([1.0, -1.0, 0.0, 2.0, 3.0], [-10, -10, -3, 0, 25], edges=[-5, 0, 5, 20])
    assert bins == [
        LengthGapBin(low=None, high=-5, count=2, accuracy=0.5),
        LengthGapBin(low=-5, high=0, count=1, accuracy=0.5),
        LengthGapBin(low=0, high=5, count=1, accuracy=1.0),
        LengthGapBin(low=20, high=None, count=1, accuracy=1.0),
    ]


def test_metrics_are_those_of_the_single_functions():
    generator = np.random.default_rng(1)
    differences, gaps = generator.normal(size=60), generator.integers(-3, 4, size=60)
    metrics = preference_metrics(differences, gaps, bins=5)
    assert metrics.accuracy.mean == pytest.approx(accuracy(differences))
    assert metrics.longer_wins.mean == pytest.approx(longer_baseline(gaps))
    probabilities = [1 / (1 + math.exp(-difference)) for difference in differences]
    assert metrics.ece.mean == pytest.approx(expected_calibration_error(probabilities, np.ones(60), bins=5))
    assert metrics.accuracy.n == metrics.ece.n == 60
    assert preference_metrics(differences).longer_wins is None


def test_pairs_of_one_prompt_are_one_observation():
    # The same 20 pairs, each written five times: without prompts the interval shrinks, with them it does not.
    generator = np.random.default_rng(2)
    differences = generator.normal(0.5, 1, size=20)
    once = preference_metrics(differences, prompts=[f"{index:02}" for index in range(20)])
    repeated = preference_metrics(np.repeat(differences, 5), prompts=[f"{index:02}" for index in range(20) for _ in range(5)])
    assert repeated.accuracy == once.accuracy
    assert repeated.ece.n == 20
    blind = preference_metrics(np.repeat(differences, 5))
    assert blind.accuracy.high - blind.accuracy.low < 0.7 * (once.accuracy.high - once.accuracy.low)


@settings(max_examples=20)
@given(st.permutations(range(12)))
def test_order_of_rows_does_not_matter(order):
    differences = np.random.default_rng(3).normal(size=12)
    prompts = [f"p{index // 3}" for index in range(12)]
    shuffled = preference_metrics(differences[order], None, [prompts[index] for index in order])
    straight = preference_metrics(differences, None, prompts)
    assert shuffled.accuracy == straight.accuracy
    assert shuffled.ece.high == pytest.approx(straight.ece.high)


def test_large_differences_do_not_overflow():
    with np.errstate(all="raise"):
        metrics = preference_metrics([800.0, -800.0], [1, 1])
    assert metrics.ece.mean == pytest.approx(0.5)


def test_refuses_nothing_and_nan():
    with pytest.raises(ValueError, match="no values"):
        preference_metrics([])
    with pytest.raises(ValueError, match="pair 1 is not a finite"):
        preference_metrics([0.0, float("nan")])
