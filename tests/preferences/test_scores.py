import math
import random

import pytest

from aligndistill.preferences import scores
from aligndistill.records import Comparison, Grade, Outcome


def comparison(first: str, second: str, outcome: Outcome, probability_first: float | None = None) -> Comparison:
    return Comparison(prompt_id="p", first=first, second=second, probability_first=probability_first, outcome=outcome, judge="j")


def grade(candidate: str, value: float | None) -> Grade:
    return Grade(prompt_id="p", candidate=candidate, value=value, judge="j")


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def test_a_judges_probability_goes_before_its_word() -> None:
    assert scores.probability_first(comparison("a", "b", "first", 0.7)) == 0.7
    assert [scores.probability_first(comparison("a", "b", word)) for word in ("first", "tie", "second")] == [1, 0.5, 0]
    assert scores.probability_first(comparison("a", "b", "unparsed")) is None


def test_two_candidates_differ_by_the_logit_of_their_mean_win_probability() -> None:
    found = scores.win_probability([comparison("a", "b", "first", 0.8), comparison("b", "a", "second", 0.4)])
    assert found["a"] - found["b"] == pytest.approx(logit((0.8 + 0.6) / 2))
    assert found["a"] == pytest.approx(-found["b"])


def test_a_taste_for_the_first_position_cancels() -> None:
    assert scores.win_probability([comparison("a", "b", "first"), comparison("b", "a", "first")]) == {"a": 0.0, "b": 0.0}


def test_three_candidates_by_hand() -> None:
    found = scores.win_probability(
        [
            comparison("a", "b", "first", 0.7),
            comparison("b", "a", "second", 0.5),
            comparison("a", "c", "first", 0.6),
            comparison("c", "b", "tie"),
        ]
    )
    a_beats_b = (0.7 + 0.5) / 2
    assert found == pytest.approx(
        {
            "a": logit((a_beats_b + 0.6) / 2) * 2 / 3,
            "b": logit((1 - a_beats_b + 0.5) / 2) * 2 / 3,
            "c": logit((1 - 0.6 + 0.5) / 2) * 2 / 3,
        }
    )


def test_sure_wins_are_clipped_by_how_many_there_are() -> None:
    once = scores.win_probability([comparison("a", "b", "first")])
    twice = scores.win_probability([comparison("a", "b", "first"), comparison("b", "a", "second")])
    assert once["a"] - once["b"] == pytest.approx(logit(1 - 1 / 4))
    assert twice["a"] - twice["b"] == pytest.approx(logit(1 - 1 / 6))


def test_bradley_terry_agrees_with_win_probability_on_two_candidates_up_to_its_prior() -> None:
    verdicts = [comparison("a", "b", "first", 0.8), comparison("b", "a", "second", 0.4)]
    exact = scores.win_probability(verdicts)
    found = scores.scores_from_comparisons(verdicts)
    assert 0.9 * exact["a"] < found["a"] < exact["a"]


def test_bradley_terry_orders_a_chain() -> None:
    found = scores.scores_from_comparisons(
        [comparison("b", "c", "first", 0.9), comparison("c", "a", "second", 0.2), comparison("b", "a", "tie")]
    )
    assert sorted(found, key=lambda candidate: -found[candidate]) == ["b", "a", "c"]
    assert sum(found.values()) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("aggregate", [scores.scores_from_comparisons, scores.win_probability])
def test_unparsed_comparisons_are_skipped_and_give_no_score(aggregate: object) -> None:
    assert callable(aggregate)
    readable = [comparison("a", "b", "first", 0.8)]
    found = aggregate([*readable, comparison("a", "c", "unparsed"), comparison("b", "a", "unparsed")])
    assert found == aggregate(readable)
    assert set(found) == {"a", "b"}
    assert aggregate([]) == aggregate([comparison("a", "c", "unparsed")]) == {}


def test_mean_grade_is_over_readable_grades_and_divided_by_the_temperature() -> None:
    found = scores.mean_grade(
        [grade("a", 8.0), grade("a", None), grade("a", 6.0), grade("b", 4.0), grade("c", None), grade("d", math.nan)], 2.0
    )
    assert found == {"a": (8 + 6) / 2 / 2, "b": 4 / 2}


def one_order(shift: float, prompt: str = "p") -> list[Comparison]:
    """a, b and c of equal quality, each pair in one order, each shown first once."""
    p = 1 / (1 + math.exp(-shift))
    return [comparison(first, second, "first", p).model_copy(update={"prompt_id": prompt}) for first, second in ("ab", "bc", "ca")]


def test_what_being_shown_first_is_worth_is_estimated_over_prompts_and_subtracted() -> None:
    comparisons = [one for number in range(30) for one in one_order(0.8, str(number))]
    advantage = scores.first_position_logit(comparisons)
    assert advantage == pytest.approx(0.8, abs=0.02)
    alone = [comparison("a", "b", "first", 1 / (1 + math.exp(-0.8)))]
    assert scores.scores_from_comparisons(alone)["a"] > 0.3
    assert scores.scores_from_comparisons(alone, advantage)["a"] == pytest.approx(0, abs=0.01)


def test_the_advantage_is_that_of_the_prompts_with_the_smallest_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the order in which comparisons come, and however many prompts there are."""
    monkeypatch.setattr(scores, "PROMPTS_FOR_ADVANTAGE", 3)
    comparisons = [one for number in range(20) for one in one_order(0.2 * number, f"{number:02}")]
    wanted = scores.first_position_logit(comparisons[: 3 * 3])
    assert wanted == pytest.approx(0.2, abs=0.02)  # of 0, 0.2 and 0.4
    for seed in range(5):
        random.Random(seed).shuffle(comparisons)
        assert scores.first_position_logit(iter(comparisons)) == pytest.approx(wanted, abs=1e-12)


def test_both_orders_need_no_advantage() -> None:
    both = [comparison("a", "b", "first", 0.9), comparison("b", "a", "first", 0.7)]
    assert scores.first_position_logit(both) == 0.0
    assert scores.first_position_logit([]) == 0.0
