"""What is asked for critiques and revisions, and which of them are dropped."""

from collections import Counter

import pytest

from aligndistill.elicitation.revision import (
    CUT_CRITIQUE,
    CUT_REVISION,
    EMPTY_REVISION,
    REFUSED_CRITIQUE,
    REFUSED_REVISION,
    UNCHANGED,
    UNREADABLE_CRITIQUE,
    author_of_revision,
    bad_critique,
    bad_revision,
    critique_request,
    principle_of,
    revised_text,
    revision_request,
)
from aligndistill.records import Candidate

PRINCIPLES = ["Be right.", "Be kind.", "Be short."]


def test_principles_are_drawn_by_seed_candidate_and_step() -> None:
    drawn = [principle_of(PRINCIPLES, f"c{n}", 0, seed=0) for n in range(3000)]
    assert [principle_of(PRINCIPLES, f"c{n}", 0, seed=0) for n in range(3000)] == drawn
    assert all(abs(count - 1000) < 100 for count in Counter(drawn).values())  # 4 standard deviations
    for other in [(1, 0), (0, 1)]:
        same = sum(principle_of(PRINCIPLES, f"c{n}", other[0], other[1]) == drawn[n] for n in range(3000))
        assert abs(same - 1000) < 110, "another step, or another seed, draws independently"


def test_the_revision_is_asked_for_behind_the_critique() -> None:
    asked = critique_request("What {principle}?", "It is {x}.", "Be right.", seed=1)
    (turn,) = asked
    assert "What {principle}?" in turn.content
    assert "It is {x}." in turn.content
    assert "The principle: Be right." in turn.content
    follow = revision_request(asked, "It is wrong.")
    assert [one.role for one in follow] == ["user", "assistant", "user"]
    assert follow[1].content == "It is wrong."


def test_an_answer_cannot_close_its_own_mark() -> None:
    text = critique_request("p", "[End of answer 0]", "Be right.", seed=1)[0].content
    mark = text.partition("with the mark ")[2].partition(" ")[0]
    assert text.count(f"[End of answer {mark}]") == 1
    assert mark != critique_request("p", "[End of answer 0]", "Be right.", seed=2)[0].content.partition("with the mark ")[2][:12]


@pytest.mark.parametrize(
    ("text", "finish", "declined", "reason"),
    [
        ("", "stop", False, UNREADABLE_CRITIQUE),
        ("...", "stop", False, UNREADABLE_CRITIQUE),
        ("It lacks the", "length", False, CUT_CRITIQUE),
        ("I cannot help with that.", "stop", True, REFUSED_CRITIQUE),
        ("It lacks the unit.", "stop", False, None),
    ],
)
def test_critiques_that_cannot_be_used(text: str, finish: str, declined: bool, reason: str | None) -> None:
    assert bad_critique(text, finish, declined) == reason  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "finish", "declined", "reason"),
    [
        ("", "stop", False, EMPTY_REVISION),
        ("It is 4 k", "length", False, CUT_REVISION),
        ("I cannot help.", "stop", True, REFUSED_REVISION),
        ("It  is\n4.", "stop", False, UNCHANGED),
        ("It is 4 kg.", "stop", False, None),
    ],
)
def test_revisions_that_are_dropped(text: str, finish: str, declined: bool, reason: str | None) -> None:
    assert bad_revision(text, finish, "It is 4.", declined) == reason  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        ("Here is the revised answer:\n\nIt is 4 kg.", "It is 4 kg."),
        ("**Revised answer:** It is 4 kg.", "It is 4 kg."),
        ("Sure! Here's my improved version: It is 4 kg.", "It is 4 kg."),
        ("It is 4 kg: a revised answer: no.", "It is 4 kg: a revised answer: no."),
    ],
)
def test_what_models_write_in_front_is_cut(reply: str, text: str) -> None:
    assert revised_text(reply) == text


def test_a_revision_has_an_author_of_its_own() -> None:
    original = Candidate(id="c", prompt_id="p", text="t", author="start")
    assert author_of_revision(original, "teacher") == "start+teacher-revision"
