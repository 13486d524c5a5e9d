"""No step can get a held-out prompt into training: models are never shown one, and what repeats one is dropped."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from aligndistill.config.elicitation import Step
from aligndistill.data.overlap import rouge_l, units
from aligndistill.records import Message, Prompt
from aligndistill.stages.elicitation import written
from tests.elicitation.prompts import HELD_OUT, all_prompts, prompt
from tests.elicitation.scripted_teacher import ScriptedAsk, numbered, prompt_about, reply_to

CONVERSATION = (
    Message(role="user", content="Please name a good opening for a beginner at chess who dislikes long games"),
    Message(role="assistant", content="The Italian game: quick and open, with chances for both sides."),
    Message(role="user", content="What would a stronger player answer to that on the third move?"),
)
TRAINED_CONVERSATION = (
    Message(role="user", content="How do I keep bees on a balcony?"),
    Message(role="assistant", content="In a small hive."),
    Message(role="user", content="And when it gets cold there?"),
)


def prompts() -> list[Prompt]:
    return [*all_prompts(), prompt(CONVERSATION, "held_out"), prompt(TRAINED_CONVERSATION)]


def held_out_turns() -> list[str]:
    return [*HELD_OUT, CONVERSATION[0].content, CONVERSATION[2].content]


def copies(text: str) -> Iterator[str]:
    """A held-out text as a leaking teacher would write it."""
    words = text.split()
    yield text
    yield text.upper()
    yield text.rstrip("?.") + " please?"
    yield f"Dear assistant, {text}"
    yield f"{text} Answer in rhymes, with at least three examples from your own life, and at great length."
    yield f"Read all of this before you begin, and then answer every part of it in turn: {text}"
    yield " ".join(["well", *words[1:]])
    yield " ".join(word if place != len(words) // 2 else "certain" for place, word in enumerate(words))
    yield " ".join([*words[-2:], *words[:-2]])


LEAKS = [leak for text in held_out_turns() for leak in copies(text)]

STEPS: dict[str, dict[str, Any]] = {
    "expand": {"kind": "expand", "target": 30},
    **{
        operation: {"kind": "evolve", "operations": [operation], "per_prompt": 6}
        for operation in ("constraints", "deepen", "concretise", "reasoning", "breadth")
    },
    "evolve twice": {"kind": "evolve", "rounds": 2, "per_prompt": 4},
    "curate": {"kind": "curate", "topics": "topics.txt", "per_topic": 20},
    "generated topics": {"kind": "curate", "topics": {"generate": 3}, "subtopics": 2, "per_topic": 10},
    "magpie": {"kind": "magpie", "target": 30},
}


def step(name: str) -> Step:
    """With models that are asked in turn, and the limits that the config has by default."""
    return TypeAdapter[Step](Step).validate_python({"name": "leaking", "model": ["teacher", "start"], **STEPS[name]})


@pytest.fixture(autouse=True)
def _topics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "topics.txt").write_text("chess\nspices\n")


class LeakingTeacher:
    """Writes a held-out text, in one form after another, wherever it is to write a prompt; every third prompt is a good one."""

    def __init__(self) -> None:
        self.number = count()
        self.leaked = 0

    def prompt(self, request: str) -> str:
        number = next(self.number)
        if number % 3 == 0:
            return prompt_about(f"{request} {number}")
        self.leaked += 1
        return LEAKS[self.leaked % len(LEAKS)]

    def __call__(self, request: str, sample: int) -> str:
        if ("topics" in request and "List" in request) or "ask for the same" in request:
            return reply_to(request)
        if "numbered list" in request:
            first = 9 if "Below are 8" in request else 1
            return numbered([self.prompt(request) for _ in range(6)], first)
        return self.prompt(request)


def contains_half(text: str, held_out: str) -> bool:
    """Whether runs of eight words cover more than half of a held-out text; of a shorter one, whether it is in the text."""
    own, other = units(text), units(held_out)
    size = min(len(other), 8)
    runs = {own[start : start + size] for start in range(len(own) - size + 1)}
    covered = {
        place
        for start in range(len(other) - size + 1)
        if other[start : start + size] in runs
        for place in range(start, start + size)
    }
    return len(covered) > len(other) / 2


@pytest.mark.parametrize("name", STEPS)
def test_a_teacher_that_knows_the_held_out_prompts_cannot_get_them_into_training(name: str) -> None:
    teacher = LeakingTeacher()
    collected = written(step(name), prompts(), ScriptedAsk(teacher), seed=0)
    assert teacher.leaked >= len(LEAKS) // 2
    assert len(collected.kept) >= 10
    for one in collected.kept:
        for held_out in held_out_turns():
            assert rouge_l(one.messages[-1].content, held_out) <= 0.7
            assert not contains_half(one.messages[-1].content, held_out)
    about_held_out = sum(count for reason, count in collected.reasons().items() if "held-out" in reason)
    assert about_held_out >= 0.8 * teacher.leaked  # the others are dropped for what is looked at first: length, more than asked for
    assert not {one.messages[-1].content for one in collected.kept} & set(LEAKS)


@pytest.mark.parametrize("name", STEPS)
def test_no_model_is_shown_a_held_out_prompt(name: str) -> None:
    ask = ScriptedAsk()
    if name == "magpie":
        ask = ScriptedAsk(lambda request, sample: prompt_about(str(sample)))
    written(step(name), prompts(), ask, seed=0)
    sent = "\n".join(message.content for question in ask.asked for message in question.messages)
    assert bool(sent) == (name != "magpie")
    turns = [*held_out_turns(), CONVERSATION[1].content]
    for text in turns:
        assert text not in sent


@pytest.mark.parametrize("name", STEPS)
def test_no_new_prompt_is_in_the_line_of_a_held_out_one(name: str) -> None:
    ask = ScriptedAsk(lambda request, sample: reply_to(request, sample) if request else prompt_about(str(sample)))
    collected = written(step(name), prompts(), ask, seed=0)
    held_out = {one.id for one in prompts() if one.split == "held_out"}
    assert collected.kept
    for one in collected.kept:
        assert one.split == "train"
        assert one.root not in held_out
        assert one.lineage is not None
        assert one.lineage.parent not in held_out
