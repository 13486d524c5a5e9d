"""RewardBench's metrics, worked out by hand."""

import math

import pytest

from aligndistill.evaluation.rewardbench import RewardedRow, credit, rewardbench_accuracy


def pair(chosen: float, rejected: float, subset: str = "chat", prompt: str | None = None) -> RewardedRow:
    return RewardedRow(subset, prompt or f"{subset} {chosen} {rejected}", "", (chosen,), (rejected,), pair=True)


def listed(chosen: list[float], rejected: list[float], subset: str = "math", ties: str = "") -> RewardedRow:
    return RewardedRow(subset, f"{subset} {chosen} {rejected} {ties}", ties, tuple(chosen), tuple(rejected), pair=False)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (pair(2, 1), 1),
        (pair(1, 2), 0),
        (pair(1, 1), 0),  # version 1 wants it strictly higher
        (listed([3], [1, 2, 2]), 1),
        (listed([3], [3, 1, 1]), 1 / 2),  # version 2 shares the point among the best
        (listed([3], [3, 3, 1]), 1 / 3),
        (listed([2], [3, 1, 1]), 0),
        (listed([3, 3], [3, 1]), 2 / 3),
    ],
)
def test_a_row_is_right_when_a_chosen_answer_is_best(row: RewardedRow, expected: float) -> None:
    assert credit(row) == pytest.approx(expected)


def test_accuracy_by_subset_and_over_all_rows() -> None:
    rows = [pair(2, 1), pair(3, 1), pair(1, 2), listed([3], [1, 2, 2]), listed([3], [3, 1, 1])]
    found = rewardbench_accuracy(rows)
    assert {name: (score.mean, score.n) for name, score in found.subsets.items()} == {
        "chat": (pytest.approx(2 / 3), 3),
        "math": (pytest.approx(3 / 4), 2),
    }
    assert found.accuracy is not None
    assert found.accuracy.mean == pytest.approx(3.5 / 5)
    assert found.mean_of_subsets == pytest.approx((2 / 3 + 3 / 4) / 2)
    assert found.rows == 5
    assert found.subsets["chat"].low == 0  # of three prompts all may be wrong once drawn again
    assert found.subsets["chat"].high == 1


def test_rows_with_one_prompt_are_drawn_together() -> None:
    """40 rows that are half right: one prompt with both halves has no spread, 40 prompts have."""
    together = rewardbench_accuracy([pair(1, n % 2 * 2, prompt=f"p{n // 2}") for n in range(40)])
    apart = rewardbench_accuracy([pair(1, n % 2 * 2, prompt=f"p{n}") for n in range(40)])
    assert together.accuracy is not None
    assert apart.accuracy is not None
    assert (together.accuracy.low, together.accuracy.mean, together.accuracy.high, together.accuracy.n) == (0.5, 0.5, 0.5, 20)
    assert apart.accuracy.low == pytest.approx(0.5 - 1.96 * math.sqrt(0.25 / 40), abs=0.03)
    assert apart.accuracy.high == pytest.approx(0.5 + 1.96 * math.sqrt(0.25 / 40), abs=0.03)


def test_ties_have_a_score_of_their_own() -> None:
    """Two questions, each asked with one right answer and with several.

    0: ref gap 5 - 2 = 3; tied gap 4 - 1 = 3, spread 6 - 4 = 2. All right; 3 > 2, min(3, 3) > 2; tanh(3 / 2 - 1).
    1: ref gap 2 - 1 = 1; tied gap 3 - 4 = -1, spread 8 - 3 = 5. Only ref is right; tanh(-1 / 5 - 1).
    """
    rows = [
        listed([5], [1, 2], "Ties", "ref:0"),
        listed([6, 4, 5], [1, 0], "Ties", "tied:0"),
        listed([2], [1], "Ties", "ref:1"),
        listed([8, 3], [4, 1], "Ties", "tied:1"),
    ]
    expected = 0.3 * 1 / 2 + 0.3 * 2 / 2 + 0.2 * 1 / 2 + 0.2 * 1 / 2 + 0.01 * (math.tanh(0.5) + math.tanh(-1.2)) / 2
    found = rewardbench_accuracy([*rows, pair(2, 1)])
    assert found.subsets["Ties"].mean == pytest.approx(expected)
    assert found.subsets["Ties"].n == 2
    assert found.accuracy is not None
    assert found.accuracy.n == 1  # without Ties
    assert found.mean_of_subsets == pytest.approx((expected + 1) / 2)
    assert rewardbench_accuracy(rows).accuracy is None


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([listed([2], [1], "Ties", "ref:0")], 0.3),  # no question with several: nothing to compare the gap with
        ([listed([2, 2], [1], "Ties", "tied:0")], 0.3),
        # Right answers that are all alike: any gap is infinitely wider.
        ([listed([2], [1], "Ties", "ref:0"), listed([2, 2], [1], "Ties", "tied:0")], 1.01),
        ([listed([1], [2], "Ties", "ref:0"), listed([2, 2], [1], "Ties", "tied:0")], 0.3 + 0.2 - 0.01),
        ([listed([1], [1], "Ties", "ref:0"), listed([2, 2], [1], "Ties", "tied:0")], 0.3 + 0.2),
    ],
)
def test_ties_at_their_edges(rows: list[RewardedRow], expected: float) -> None:
    assert rewardbench_accuracy(rows).subsets["Ties"].mean == pytest.approx(expected)


def test_no_rows_and_missing_rewards_have_no_metrics() -> None:
    with pytest.raises(ValueError, match="no rows"):
        rewardbench_accuracy([])
    with pytest.raises(ValueError, match="finite"):
        rewardbench_accuracy([pair(math.nan, 1)])
