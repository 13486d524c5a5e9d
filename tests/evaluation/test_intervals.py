import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import stats

from aligndistill.evaluation import intervals
from aligndistill.evaluation.intervals import Mean, bootstrap_mean, bootstrap_totals


def test_json_keys():
    figure = bootstrap_mean([0.0, 1.0])
    assert set(figure.model_dump()) == {"mean", "low", "high", "n"}
    assert Mean.model_validate_json(figure.model_dump_json()) == figure


def test_a_mean_lies_within_its_interval():
    with pytest.raises(ValidationError, match="must be within the interval"):
        Mean(mean=0.5, low=0.6, high=0.7, n=3)
    with pytest.raises(ValidationError):
        Mean(mean=float("nan"), low=0, high=1, n=3)


def test_one_value_is_its_own_interval():
    assert bootstrap_mean([0.3]) == Mean(mean=0.3, low=0.3, high=0.3, n=1)


def test_two_values_by_hand():
    # Resampled means are 0, 1/2 and 1 with probability 1/4, 1/2, 1/4: the 2.5 % and 97.5 % points are 0 and 1.
    assert bootstrap_mean([0.0, 1.0]) == Mean(mean=0.5, low=0.0, high=1.0, n=2)
    # With 40 % inside, the interval's ends are the 30 % and 70 % points, which are both 1/2.
    assert bootstrap_mean([0.0, 1.0], confidence=0.4) == Mean(mean=0.5, low=0.5, high=0.5, n=2)


@pytest.mark.parametrize("values", [[], [0.1, float("nan")], [float("inf")]])
def test_refuses(values):
    with pytest.raises(ValueError, match=r"no values|row \d is not a finite number"):
        bootstrap_mean(values)


def test_agrees_with_scipy():
    values = np.random.default_rng(1).gamma(2.0, size=80)
    oracle = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=5).confidence_interval
    ours = bootstrap_mean(list(values), resamples=20_000)
    width = oracle.high - oracle.low
    assert ours.low == pytest.approx(oracle.low, abs=0.03 * width)
    assert ours.high == pytest.approx(oracle.high, abs=0.03 * width)


def test_agrees_with_the_closed_form_for_many_values():
    values = np.random.default_rng(2).normal(3.0, 2.0, size=2000)
    half_width = 1.96 * values.std() / np.sqrt(len(values))
    ours = bootstrap_mean(list(values), resamples=5000)
    assert ours.mean == pytest.approx(values.mean())
    assert ours.low == pytest.approx(values.mean() - half_width, abs=0.08 * half_width)
    assert ours.high == pytest.approx(values.mean() + half_width, abs=0.08 * half_width)


def test_covers_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(3)
    metrics = [bootstrap_mean(list(generator.random(50) < 0.7), seed=trial, resamples=400) for trial in range(400)]
    covered = np.mean([figure.low <= 0.7 <= figure.high for figure in metrics])
    assert 0.90 <= covered <= 0.975


def test_seed_decides():
    values = list(np.random.default_rng(4).random(30))
    assert bootstrap_mean(values, seed=1) == bootstrap_mean(values, seed=1)
    assert bootstrap_mean(values, seed=1) != bootstrap_mean(values, seed=2)


@settings(max_examples=30)
@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=12), st.floats(-100, 100))
def test_moves_with_the_values_and_stays_inside_them(values, shift):
    figure = bootstrap_mean(values, resamples=200)
    moved = bootstrap_mean([value + shift for value in values], resamples=200)
    assert moved.low == pytest.approx(figure.low + shift, abs=1e-6)
    assert moved.high == pytest.approx(figure.high + shift, abs=1e-6)
    assert min(values) - 1e-6 <= figure.low <= figure.high <= max(values) + 1e-6


def test_blocks_do_not_change_the_result(monkeypatch):
    values = list(np.random.default_rng(5).random(40))
    whole = bootstrap_mean(values, resamples=500)
    monkeypatch.setattr(intervals, "_CELLS_AT_ONCE", 40 * 7)
    in_blocks = bootstrap_mean(values, resamples=500)
    assert in_blocks.low == pytest.approx(whole.low)
    assert in_blocks.high == pytest.approx(whole.high)


def test_ratio_of_totals_pools_the_rows():
    # 1 of 1 and 0 of 3: the ratio of totals is 1/4, not the mean of the ratios, 1/2.
    figure = bootstrap_totals([[1, 1], [0, 3]], lambda totals: totals[:, 0] / totals[:, 1])
    assert figure.mean == 0.25
    assert (figure.low, figure.high, figure.n) == (0.0, 1.0, 2)
