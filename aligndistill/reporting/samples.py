"""Answers to show side by side, and which held-out prompts to show them for."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean


@dataclass(frozen=True)
class SampleAnswer:
    """One answer, its author, and its truth and the judge's score (higher is better), if any."""

    author: str
    text: str
    truth: float | None = None
    score: float | None = None


@dataclass(frozen=True)
class SamplePrompt:
    """A prompt with its answers; `note` says why it is shown."""

    prompt: str
    answers: tuple[SampleAnswer, ...]
    note: str = ""


def choose_samples(prompts: Sequence[SamplePrompt], count: int = 6) -> list[SamplePrompt]:
    """Prompts that show what training did: a third where the students gained most, a third typical, a third least.

    The gain of a prompt is the students' mean truth (or score, without truth) minus that of the author `start`; ties stay in
    the given order. If gains are not known for all prompts, the first prompts are taken.
    """
    gains = [_gain(prompt) for prompt in prompts]
    if len(prompts) <= count or None in gains:
        return list(prompts[:count])
    by_gain = sorted(range(len(prompts)), key=lambda index: -(gains[index] or 0.0))
    third = count // 3
    middle_start = (len(prompts) - (count - 2 * third)) // 2
    middle = by_gain[middle_start : middle_start + count - 2 * third]
    noted = [("most improved", by_gain[:third]), ("typical", middle), ("least improved", by_gain[len(prompts) - third :])]
    return [replace(prompts[index], note=note) for note, indices in noted for index in indices]


def _gain(prompt: SamplePrompt) -> float | None:
    for measure in ("truth", "score"):
        start = [getattr(answer, measure) for answer in prompt.answers if answer.author == "start"]
        students = [getattr(answer, measure) for answer in prompt.answers if answer.author not in ("start", "teacher")]
        if start and students and None not in start + students:
            return fmean(students) - fmean(start)
    return None
