"""Answers to show side by side, and which held-out prompts to show them for."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from aligndistill.reporting.writing import number

START, TEACHER = "start", "teacher"
MEASURES = {"truth": "truth", "win": "P(win)", "reward": "reward"}
"""What an answer gains over the start's, by the first that is known; one half is the start's own P(win)."""


@dataclass(frozen=True)
class SampleAnswer:
    """One answer.

    Attributes:
        truth, reward: higher is better.
        tokens: its length.
        win: P(the judge prefers it to the start's).
    """

    author: str
    text: str
    truth: float | None = None
    reward: float | None = None
    tokens: int | None = None
    win: float | None = None

    @property
    def facts(self) -> str:
        """`truth 0.00 · reward -2.77 · 3 tokens · loses to start`, of what is known."""
        parts = [f"{name} {number(value)}" for name, value in (("truth", self.truth), ("reward", self.reward)) if value is not None]
        parts += [] if self.tokens is None else [f"{self.tokens:,} token{'' if self.tokens == 1 else 's'}"]
        if self.win is not None and self.author != START:
            parts.append("ties with start" if self.win == 0.5 else "beats start" if self.win > 0.5 else "loses to start")
        return " · ".join(parts)


@dataclass(frozen=True)
class SamplePrompt:
    """A prompt with its answers; `note` says why it is shown, `id` is the prompt's."""

    prompt: str
    answers: tuple[SampleAnswer, ...]
    note: str = ""
    id: str = ""

    def of(self, author: str) -> SampleAnswer | None:
        """An author's answer."""
        return next((answer for answer in self.answers if answer.author == author), None)


def samples_of(students: Iterable[str], prompts: Sequence[SamplePrompt]) -> dict[str, list[SamplePrompt]]:
    """Of each student, the prompts on which it gained most, in the middle and least over the start, with the answers of the start,
    the student and the teacher.
    """
    return {student: found for student in students if (found := chosen(student, prompts))}


def chosen(student: str, prompts: Sequence[SamplePrompt]) -> list[SamplePrompt]:
    """Most gained, median and most lost; ties stay in the given order. The first three where nothing was measured."""
    answered = [prompt for prompt in prompts if prompt.of(student) is not None]
    measure = next((name for name in MEASURES if any(gain(one, student, name) is not None for one in answered)), None)
    if measure is None:
        return [_shown(prompt, student, "") for prompt in answered[:3]]
    gains = [(known, one) for one in answered if (known := gain(one, student, measure)) is not None]
    ordered = sorted(gains, key=lambda pair: -pair[0])
    places = list(dict.fromkeys((0, (len(ordered) - 1) // 2, len(ordered) - 1)))
    names = {0: "Most gained", len(ordered) - 1: "Most lost" if ordered[-1][0] < 0 else "Least gained"}
    return [
        _shown(prompt, student, f"{names.get(place, 'Median')}: {MEASURES[measure]} {gained:+.2f}")
        for place in places
        for gained, prompt in [ordered[place]]
    ]


def gain(prompt: SamplePrompt, student: str, measure: str) -> float | None:
    """By how much the student's answer is better than the start's; None if that is not known."""
    ours, theirs = prompt.of(student), prompt.of(START)
    if ours is None or theirs is None:
        return None
    if measure == "win":
        return None if ours.win is None else ours.win - 0.5
    before, after = getattr(theirs, measure), getattr(ours, measure)
    return None if before is None or after is None else after - before


def _shown(prompt: SamplePrompt, student: str, note: str) -> SamplePrompt:
    authors = (START, student, TEACHER)
    return replace(prompt, answers=tuple(one for name in authors if (one := prompt.of(name)) is not None), note=note)
