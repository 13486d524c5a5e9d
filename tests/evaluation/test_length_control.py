import math

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logit

from aligndistill.evaluation.length_control import Controlled, controlled_win_rate, style_differences


def simulated(seed: int, *, quality: float, longer: float, soft: bool, prompts: int = 400):
    """A judge with a slope of 1 per tanh unit of length; answers `longer` times as long; prompts that differ (sd 0.7)."""
    generator = np.random.default_rng(seed)
    theirs = generator.lognormal(4.5, 0.5, prompts)
    ours = longer * theirs * generator.lognormal(0, 0.3, prompts)
    lengths = np.round(ours - theirs)
    probability = expit(logit(quality) + np.tanh(lengths / lengths.std()) + generator.normal(0, 0.7, prompts))
    verdicts = probability if soft else (generator.random(prompts) < probability).astype(float)
    return list(verdicts), list(lengths), [str(number) for number in range(prompts)]


def rate(controlled: Controlled) -> float:
    assert controlled.win_rate is not None
    return controlled.win_rate.mean


@pytest.mark.parametrize(("soft", "within"), [(False, 0.04), (True, 0.02)])
def test_longer_answers_of_the_same_quality_come_out_near_one_half(soft: bool, within: float) -> None:
    plain, controlled = [], []
    for seed in range(8):
        verdicts, lengths, prompts = simulated(seed, quality=0.5, longer=1.4, soft=soft)
        plain.append(np.mean(verdicts))
        controlled.append(rate(controlled_win_rate(verdicts, lengths, prompts, resamples=2)))
    assert np.mean(plain) > 0.57
    assert abs(np.mean(controlled) - 0.5) < within
    assert np.abs(np.array(controlled) - 0.5).max() < 3 * within


def test_a_better_student_stays_better() -> None:
    verdicts, lengths, prompts = simulated(0, quality=0.6, longer=1.4, soft=True)
    controlled = controlled_win_rate(verdicts, lengths, prompts)
    assert controlled.win_rate is not None
    assert controlled.win_rate.low < 0.6 < controlled.win_rate.high
    assert np.mean(verdicts) > controlled.win_rate.high
    assert controlled.win_rate.n == 400


def test_it_is_the_optimum_that_scipy_finds() -> None:
    verdicts, lengths, prompts = simulated(1, quality=0.55, longer=1.2, soft=True, prompts=60)
    styles = np.random.default_rng(0).uniform(-1, 1, (60, 3))
    x = np.column_stack([np.ones(60), np.tanh(np.array(lengths) / np.std(lengths)), styles])

    def cost(theta):
        eta = x @ theta
        return -(np.array(verdicts) * eta - np.logaddexp(0, eta)).sum() + 0.5 * (theta[1:] ** 2).sum()

    expected = expit(minimize(cost, np.zeros(5), tol=1e-12).x[0])
    assert rate(controlled_win_rate(verdicts, lengths, prompts, styles, resamples=2)) == pytest.approx(expected, abs=1e-5)


def test_two_lengths_by_hand() -> None:
    # Differences of -d and +d, as often: x = tanh(-1) and tanh(1), so the slope changes no mean and the intercept solves
    # mean over both of sigmoid(b +- s x) = win rates, which are 0.3 and 0.7: by symmetry b = 0.
    verdicts, lengths = [0.3, 0.7] * 20, [-10, 10] * 20
    assert rate(controlled_win_rate(verdicts, lengths, list(map(str, range(40))), resamples=2)) == pytest.approx(0.5)


def test_a_copy_is_at_one_half_and_equal_lengths_leave_the_win_rate() -> None:
    prompts = list(map(str, range(30)))
    copy = controlled_win_rate([0.5] * 30, [0] * 30, prompts)
    assert copy.win_rate is not None
    assert (copy.win_rate.mean, copy.win_rate.low, copy.win_rate.high) == (0.5, 0.5, 0.5)
    verdicts = [1.0] * 21 + [0.0] * 9
    assert rate(controlled_win_rate(verdicts, [0] * 30, prompts, resamples=2)) == pytest.approx(0.7)


def test_lengths_that_say_nothing_leave_the_win_rate() -> None:
    generator = np.random.default_rng(0)
    verdicts = (generator.random(2000) < 0.7).astype(float)
    lengths = generator.normal(0, 30, 2000)
    controlled = rate(controlled_win_rate(list(verdicts), list(lengths), list(map(str, range(2000))), resamples=2))
    assert controlled == pytest.approx(verdicts.mean(), abs=0.01)


def test_samples_of_a_prompt_count_as_one() -> None:
    # With slopes of 0 it is the mean over prompts of their mean over samples, and resampling is of prompts.
    controlled = controlled_win_rate([1.0, 1.0, 1.0, 0.0], [0, 0, 0, 0], ["a", "a", "a", "b"])
    assert controlled.win_rate is not None
    assert controlled.win_rate.mean == pytest.approx(0.5)
    assert controlled.win_rate.n == 2


@pytest.mark.parametrize(("sign", "word"), [(1, "longer"), (-1, "shorter")])
def test_a_judge_of_length_and_answers_that_are_always_longer_say_nothing_of_quality(sign: int, word: str) -> None:
    lengths = [sign * length for length in range(1, 41)]
    controlled = controlled_win_rate([float(sign > 0)] * 40, lengths, list(map(str, range(40))))
    assert controlled.win_rate is None
    assert controlled.warning == f"all answers are {word} than the start's: the win rate at equal length is unknown"


def test_a_judge_of_length_alone_is_warned_of() -> None:
    lengths = [-30, -10, 5, 12, 15, 20, 25, 28, 30, 40] * 10
    verdicts = [float(length > 0) for length in lengths]
    controlled = controlled_win_rate(verdicts, lengths, list(map(str, range(100))))
    assert controlled.win_rate is not None
    assert controlled.win_rate.high < 0.8  # not 0.5: the penalty keeps the slope finite
    assert controlled.warning is not None
    assert controlled.warning.startswith("the win rate is 0.80, and 0.")


def test_all_wins_stay_all_wins() -> None:
    controlled = controlled_win_rate([1.0] * 20, [-5, 5] * 10, list(map(str, range(20))))
    assert controlled.win_rate is not None
    assert controlled.win_rate.mean > 0.999
    assert math.isfinite(controlled.win_rate.low)


def test_far_from_equal_lengths_are_said() -> None:
    lengths = [*range(30, 70), -1]
    verdicts = [0.6] * 41
    warning = controlled_win_rate(verdicts, lengths, list(map(str, range(41)))).warning
    assert warning == "most answers are much longer than the start's: the win rate at equal length is an extrapolation"


def test_the_interval_is_the_same_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts, lengths, prompts = simulated(2, quality=0.5, longer=1.1, soft=True, prompts=50)
    whole = controlled_win_rate(verdicts, lengths, prompts, resamples=40)
    monkeypatch.setattr("aligndistill.evaluation.intervals._CELLS_AT_ONCE", 1000)
    blocks = controlled_win_rate(verdicts, lengths, prompts, resamples=40)
    assert whole.win_rate is not None and blocks.win_rate is not None  # noqa: PT018
    assert blocks.win_rate.low == pytest.approx(whole.win_rate.low, abs=1e-9)
    assert blocks.win_rate.high == pytest.approx(whole.win_rate.high, abs=1e-9)


def test_style_is_counted_in_markdown() -> None:
    ours = "# Title\n\n- one\n- two\n3. three\n\nSome **bold** text"
    assert style_differences(ours, "plain") == (1 / 2, 3 / 4, 1 / 2)
    assert style_differences(ours, ours) == (0.0, 0.0, 0.0)
    assert style_differences("#hashtag 2.5 a * b", "") == (0.0, 0.0, 0.0)


def test_a_judge_of_lists_is_seen_through_by_style_alone() -> None:
    generator = np.random.default_rng(3)
    styles = np.zeros((600, 3))
    styles[:, 1] = generator.choice([-0.5, 0.5, 0.5, 0.5], 600)
    verdicts = expit(3 * styles[:, 1])
    lengths, prompts = generator.normal(0, 10, 600), list(map(str, range(600)))
    assert rate(controlled_win_rate(list(verdicts), list(lengths), prompts, resamples=2)) > 0.6
    assert rate(controlled_win_rate(list(verdicts), list(lengths), prompts, styles, resamples=2)) == pytest.approx(0.5, abs=0.02)


def test_nothing_compared_is_an_error() -> None:
    with pytest.raises(ValueError, match="no comparisons"):
        controlled_win_rate([], [], [])
