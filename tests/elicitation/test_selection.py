"""Which of a prompt's answers are kept, by hand."""

import pytest

from aligndistill.elicitation.selection import (
    LOW_GRADE,
    NO_MAJORITY,
    NO_VERDICT,
    NOT_BEST,
    OTHER_ANSWER,
    REJECTED,
    SAME_ANSWER,
    agreeing,
    at_least,
    best,
    difficulty,
    final_answer,
)
from aligndistill.records import Candidate


def answers(**samples: int) -> list[Candidate]:
    return [Candidate(id=name, prompt_id="p", text=name, author="teacher", samples=count) for name, count in samples.items()]


def answer(candidate: Candidate) -> str | None:
    """The first letter; candidates named x... have none."""
    return None if candidate.text[0] == "x" else candidate.text[0]


def test_the_best_is_the_first_of_the_highest_scores() -> None:
    kept = best(answers(a=1, b=2, c=1, d=3), {"a": 0.5, "b": 2.0, "c": 2.0})
    assert [one.id for one in kept.candidates] == ["b"]
    assert kept.dropped == {NO_VERDICT: 3, NOT_BEST: 2}
    assert kept.accepted is None


def test_a_single_answer_is_the_best_and_none_is_without_any_verdict() -> None:
    assert len(best(answers(a=2), {}).candidates) == 1
    none = best(answers(a=2, b=1), {})
    assert (none.candidates, none.dropped) == ((), {NO_VERDICT: 3})


def test_at_least_keeps_all_different_ones_and_counts_the_samples_of_the_others() -> None:
    kept = at_least(answers(a=1, b=2, c=4, d=1), {"a": 7.0, "b": 6.9, "c": 8.0}, 7.0, LOW_GRADE)
    assert [one.id for one in kept.candidates] == ["a", "c"]
    assert kept.dropped == {NO_VERDICT: 1, LOW_GRADE: 2}
    assert kept.accepted == pytest.approx(5 / 8)
    assert at_least(answers(a=1), {"a": 0.0}, 1.0, REJECTED).dropped == {REJECTED: 1}


def test_agreement_is_a_vote_of_samples() -> None:
    # 4: 1 + 2 of 8 samples; 5: 3; none: 1; 6: 1. Without a majority of half, nothing; 5 with at least 3/8.
    votes = answers(f=1, s=3, fo=2, x=1, n=1)
    assert agreeing(votes, answer, 0.5).candidates == ()
    tied = agreeing(votes, answer, 0.1)
    assert (tied.candidates, tied.dropped) == ((), {NO_MAJORITY: 8})  # f and s have 3 each
    clear = agreeing(answers(f=1, s=2, fo=2, x=1), answer, 0.5)
    assert [one.id for one in clear.candidates] == ["f"]  # the first of those with the answer
    assert clear.dropped == {OTHER_ANSWER: 3, SAME_ANSWER: 2}
    assert clear.accepted == pytest.approx(0.5)
    assert agreeing(answers(f=1, s=2, fo=2, x=1), answer, 0.51).candidates == ()
    assert agreeing(answers(x=3), answer, 0.5).accepted == 0.0


@pytest.mark.parametrize(
    ("text", "pattern", "found"),
    [
        ("So it is\n**Paris.**\n", None, "paris"),
        ("1,000.0", None, "1000"),
        ("$ 12.50", None, "12.5"),
        ("-5", None, "-5"),
        ("x + 1", None, "x + 1"),
        (" \n", None, None),
        ("...", None, None),
        ("\uff14\uff12\u3002", None, "42"),
        ("first \\boxed{1}, then \\boxed{ 2 }", r"\\boxed\{([^}]*)\}", "2"),
        ("It is 7 or 8 apples", r"\d+", "8"),
        ("none", r"\d+", None),
        ("so a half,\n.5", None, "0.5"),
        ("$.50", None, "0.5"),
        ("It is **$0.50**", r"\*\*(.*)\*\*", "0.5"),
        (".5 miles", None, ".5 miles"),  # not five
        ("... 5.", None, "5"),
        ("-.5", None, "-0.5"),
        ("\u22125", None, "-5"),
        ("-$5", None, "-5"),
        ("+5", None, "5"),
        ("-0.0", None, "0"),
        ("007", None, "7"),
        ("$1,234.50", None, "1234.5"),
        ("1,00,000", None, "100000"),
        ("\u0664\u0662", None, "42"),  # Arabic digits
        ("50%", None, "50%"),
        ("3/4", None, "3/4"),
        ("1e5", None, "1e5"),
        (".gitignore", None, "gitignore"),
    ],
)
def test_final_answers_are_compared_in_a_normal_form(text: str, pattern: str | None, found: str | None) -> None:
    assert final_answer(text, pattern) == found


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("5", ".5"),
        ("5%", ".5%"),
        ("12", "(1,2)"),
        ("15", "1,5"),  # one and a half in German
        ("123", "0,123"),
        ("10020300", "100,20,300"),
        ("1307674368000", "1307674368001"),
        ("9" * 400, "8" * 401),
    ],
)
def test_different_answers_stay_different(one: str, other: str) -> None:
    assert final_answer(one) != final_answer(other)


def test_long_numbers_keep_their_digits() -> None:
    assert final_answer("9" * 400) == "9" * 400
    assert final_answer("0" * 400 + ".10") == "0.1"


def test_prompts_by_the_share_of_their_answers_that_were_accepted() -> None:
    shares = {0: "none", 1 / 3: "up to a third", 0.5: "up to two thirds", 2 / 3: "up to two thirds", 0.9: "more", 1: "all"}
    assert {share: difficulty(share) for share in shares} == shares
