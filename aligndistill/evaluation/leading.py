"""Which student leads, without luck: which students may be the best, and what choosing the best of them is worth.

The student with the highest mean of several is ahead partly by chance, and its mean on the prompts that it was chosen on is too
high. So

- all students are marked that no other is clearly ahead of, by paired differences over all prompts; the intervals are wide
  enough (Bonferroni) for the truly best one to be among them with a probability of 95 %, as in Hsu's multiple comparisons with
  the best (1981);
- the value of the choice is cross-fitted: the best student on each half of the prompts, by hash, is measured on the other half.

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
RESAMPLES = 2000


class Leading(Record):
    """The leading student and those that are not distinguishable from it.

    Attributes:
        measure: what students are compared by.
        leader: the best on all prompts.
        value: the measure of the best student on one half of the prompts, on the other half; both halves together.
        chosen: the best student on each half.
        differences: the measure of the leader minus that of each other student, paired, over all prompts. The intervals hold
            together with 95 %, so with more students they are wider.
        group: the leader, and the students that none is clearly ahead of.
    """

    measure: Measure
    leader: str
    value: Mean
    chosen: tuple[str, str]
    differences: Mapping[str, Mean]
    group: tuple[str, ...]


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
    """Which half of the prompts this one is in, by the hash of its id."""
    return int(content_hash("half", prompt), 16) % 2 == 0


def leading(measure: Measure, students: Mapping[str, Sequence[Measured]], seed: int = 0) -> Leading | None:
    """The leading student by a measure, on the prompts that all students have a value for.

    Returns:
        None with fewer than two students, without prompts in one of the halves, or where a win rate at equal length is unknown.
    """
    if len(students) < 2:
        return None
    shared = set.intersection(*({one.prompt for one in of_student} for of_student in students.values()))
    halves = [sorted(prompt for prompt in shared if in_first_half(prompt) == first) for first in (True, False)]
    if not all(halves):
        return None
    evaluate = _controlled if measure == "win_rate_lc" else _mean
    everywhere = {name: evaluate(of_student, sorted(shared), RESAMPLES, seed) for name, of_student in students.items()}
    on_halves = [{name: evaluate(one, half, 0, seed) for name, one in students.items()} for half in halves]
    if any(found is None for results in (everywhere, *on_halves) for found in results.values()):
        return None
    known = {name: values_D for name, values_D in everywhere.items() if values_D is not None}
    first, second = (max(results, key=lambda name: _value(results[name])) for results in on_halves)
    other = {**dict.fromkeys(halves[0], second), **dict.fromkeys(halves[1], first)}  # the best on the other half
    crossed = [one for name, of_student in students.items() for one in of_student if other.get(one.prompt) == name]
    values_D = evaluate(crossed, sorted(shared), RESAMPLES, seed)
    if values_D is None:
        return None
    confidence = 1 - 0.05 / (len(students) - 1)

    def ahead(name: str, behind: str) -> Mean:
        gap_D = known[name] - known[behind]
        return between_quantiles(float(gap_D[0]), gap_D[1:], len(shared), confidence)

    leader = max(known, key=lambda name: _value(known[name]))
    candidates = [name for name in known if not any(ahead(one, name).low > 0 for one in known if one != name)]
    return Leading(
        measure=measure,
        leader=leader,
        value=between_quantiles(float(values_D[0]), values_D[1:], len(shared)),
        chosen=(first, second),
        differences={name: ahead(leader, name) for name in known if name != leader},
        group=(leader, *(name for name in candidates if name != leader)),
    )


def _value(values_D: "FloatArray | None") -> float:
    """The value on the sample itself."""
    assert values_D is not None
    return float(values_D[0])


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
