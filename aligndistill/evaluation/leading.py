"""Which student leads, without luck: chosen on one half of the held-out prompts, reported on the other.

The student with the highest mean of several is ahead partly by chance, and its mean on the prompts that it was chosen on is too
high. So the prompts are halved by hash; the leader is the best on one half, and all that is said of it is measured on the other:
its value, and its paired difference from every other student, with a bootstrap over prompts.

Shapes: P prompts, N answers or comparisons, D resamples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from aligndistill.evaluation.intervals import Mean, between_quantiles, times_drawn
from aligndistill.evaluation.length_control import rates_at_equal_length
from aligndistill.records import Record, content_hash

if TYPE_CHECKING:  # numpy is imported late, as in `intervals`
    from aligndistill.evaluation.intervals import FloatArray

Measure = Literal["truth", "win_rate_lc", "win_rate"]
RESAMPLES = 1000


class Leading(Record):
    """The leading student and those that are not distinguishable from it.

    Attributes:
        measure: what students are compared by.
        leader: the best on one half of the prompts.
        value: its measure on the other half.
        differences: on the other half, its measure minus that of each other student, with the paired 95 % interval.
        chosen_on: the number of prompts in the first half; the second's is `value.n`.
    """

    measure: Measure
    leader: str
    value: Mean
    differences: Mapping[str, Mean]
    chosen_on: int

    @property
    def group(self) -> tuple[str, ...]:
        """The leader, and the students of whom it is not certain that they are behind it."""
        return (self.leader, *(name for name, difference in self.differences.items() if difference.low <= 0))


@dataclass(frozen=True)
class Measured:
    """What was measured on one answer, or on one comparison of answers.

    Attributes:
        value: the score, or the probability of winning.
        length_difference: ours minus theirs, tokens; 0 for a score.
    """

    prompt: str
    value: float
    length_difference: float = 0.0


def in_first_half(prompt: str) -> bool:
    """Whether the leader is chosen on this prompt, by the hash of its id."""
    return int(content_hash("half", prompt), 16) % 2 == 0


def leading(measure: Measure, students: Mapping[str, Sequence[Measured]], seed: int = 0) -> Leading | None:
    """The leading student by a measure, on the prompts that all students have a value for.

    Returns:
        None with fewer than two students, without prompts in one of the halves, or where a win rate at equal length is unknown.
    """
    if len(students) < 2:
        return None
    shared = set.intersection(*({one.prompt for one in of_student} for of_student in students.values()))
    first = [prompt for prompt in sorted(shared) if in_first_half(prompt)]
    second = [prompt for prompt in sorted(shared) if not in_first_half(prompt)]
    if not first or not second:
        return None
    evaluate = _controlled if measure == "win_rate_lc" else _mean
    chosen = {name: evaluate(of_student, first, 0, seed) for name, of_student in students.items()}
    reported = {name: evaluate(of_student, second, RESAMPLES, seed) for name, of_student in students.items()}
    if any(one is None for one in (*chosen.values(), *reported.values())):
        return None
    on_first = {name: float(one[0]) for name, one in chosen.items() if one is not None}
    on_second = {name: one for name, one in reported.items() if one is not None}
    leader = max(on_first, key=lambda name: on_first[name])

    def interval(values_D: "FloatArray") -> Mean:
        return between_quantiles(float(values_D[0]), values_D[1:], len(second))

    return Leading(
        measure=measure,
        leader=leader,
        value=interval(on_second[leader]),
        differences={name: interval(on_second[leader] - values_D) for name, values_D in on_second.items() if name != leader},
        chosen_on=len(first),
    )


def _draws(prompts: Sequence[str], resamples: int, seed: int) -> "FloatArray":
    """How often each prompt is drawn, (1 + D, P): once in the first row, which is the sample itself, by chance in the others."""
    import numpy as np

    drawn = list(times_drawn(seed, resamples, len(prompts))) if resamples else []
    return np.concatenate([np.ones((1, len(prompts))), *drawn])


def _mean(measured: Sequence[Measured], prompts: Sequence[str], resamples: int, seed: int) -> "FloatArray | None":
    """The mean over prompts of a prompt's mean, on the sample and in each resample, (1 + D,)."""
    import numpy as np

    of_prompt: dict[str, list[float]] = {prompt: [] for prompt in prompts}
    for one in measured:
        if one.prompt in of_prompt:
            of_prompt[one.prompt].append(one.value)
    means_P = np.array([sum(values) / len(values) for values in of_prompt.values()])
    means: FloatArray = _draws(prompts, resamples, seed) @ means_P / len(prompts)
    return means


def _controlled(measured: Sequence[Measured], prompts: Sequence[str], resamples: int, seed: int) -> "FloatArray | None":
    """The win rate at equal length, on the sample and in each resample, (1 + D,); None where it is unknown."""
    import numpy as np

    place = {prompt: number for number, prompt in enumerate(prompts)}
    kept = [one for one in measured if one.prompt in place]
    lengths = [one.length_difference for one in kept]
    if min(lengths) > 0 or max(lengths) < 0:
        return None
    prompt_N = np.array([place[one.prompt] for one in kept])
    return rates_at_equal_length([one.value for one in kept], lengths, prompt_N, _draws(prompts, resamples, seed))


def leading_by_first(measures: Mapping[Measure, Mapping[str, Sequence[Measured]]]) -> Leading | None:
    """The leading student by the first measure that all students have."""
    found = (leading(measure, students) for measure, students in measures.items() if all(students.values()))
    return next((one for one in found if one is not None), None)
