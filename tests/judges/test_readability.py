"""A judge whose replies cannot be read is stopped early, and one that now and then cannot be read is not."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligndistill.chat.protocol import CUT_IN_THOUGHTS, UNANSWERED, Reply
from aligndistill.chat.scripted import ScriptedChat
from aligndistill.errors import JudgeError
from aligndistill.evaluation.intervals import wilson
from aligndistill.judges.questions import JudgeOptions
from aligndistill.judges.readability import ReadabilityWatch, wilson_lower
from aligndistill.judges.rubric import RubricJudge
from aligndistill.judges.templates import RUBRIC_FIELDS, load_template
from aligndistill.records import Usage
from tests.judges.tasks import task

NONSENSE = Reply("I would rather not say.", "stop", Usage())


def stopped_after(replies: Sequence[bool], limit: float | None = 0.5) -> int | None:
    """The number of replies, readable or not, after which a watch stops; None if it does not."""
    watch = ReadabilityWatch(limit)
    for number, readable in enumerate(replies, start=1):
        try:
            watch.readable() if readable else watch.unreadable(NONSENSE)
        except JudgeError:
            return number
    return None


def test_eight_unreadable_replies_at_the_start_are_enough() -> None:
    assert stopped_after([False] * 100) == 8
    assert stopped_after([False] * 7 + [True] * 93) is None
    assert stopped_after([False] * 100, limit=None) is None


def test_later_the_share_must_be_above_the_limit_with_its_whole_interval() -> None:
    # Wilson's lower end for 23 of 32 is 0.546, for 21 of 32 it is 0.483.
    assert stopped_after([True] * 9 + [False] * 23) == 32
    assert stopped_after([True] * 11 + [False] * 21) is None
    assert stopped_after([True, False] * 500) is None
    assert stopped_after([True, False, False] * 100) is not None


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_bound_is_wilsons(case: tuple[int, int]) -> None:
    successes, n = case
    assert wilson_lower(successes, n) == pytest.approx(max(wilson(successes, n).low, 0.0), abs=1e-9)


def test_replies_that_a_server_did_not_give_are_not_counted() -> None:
    watch = ReadabilityWatch(0.5)
    for _ in range(50):
        watch.unreadable(Reply("", "stop", Usage(), f"{UNANSWERED} 3 attempts: HTTP 503"))
    assert watch.not_read == 0


def test_thoughts_that_do_not_end_are_named_with_the_keys_to_change() -> None:
    watch = ReadabilityWatch(0.5)
    cut = Reply("", "length", Usage(), f"{CUT_IN_THOUGHTS} (64 tokens)", thoughts="Okay, the user")
    for _ in range(7):
        watch.unreadable(cut)
    with pytest.raises(JudgeError) as caught:
        watch.unreadable(cut)
    for part in ("none of the judge's first 8 verdicts", "inside its thoughts (64 tokens)", "'Okay, the user'", "thinking: off"):
        assert part in str(caught.value)


def test_a_judge_asks_no_further() -> None:
    asked = []

    def answer(messages: object, sample: int) -> str:
        asked.append(messages)
        return "no idea"

    template = load_template("rubric", RUBRIC_FIELDS)
    tasks = [task(f"why {number}", "x", "y") for number in range(50)]
    judge = RubricJudge("j", ScriptedChat(answer), template, options=JudgeOptions(unreadable_limit=0.5))
    with pytest.raises(JudgeError, match="first unreadable reply was 'no idea'"):
        list(judge.judge(tasks))
    assert len(asked) == 8
