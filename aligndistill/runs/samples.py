"""Held-out answers of a run for a notebook: some of a student's samples, and two runs compared over the prompts that they share."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal, get_args

from aligndistill.errors import ConfigError, DataError
from aligndistill.evaluation.intervals import Mean, paired_difference
from aligndistill.reporting.samples import MEASURES, START, SamplePrompt, gain
from aligndistill.stages.files import SCORED
from aligndistill.stages.report_page import sample_prompts
from aligndistill.stages.scored_answers import ScoredAnswer
from aligndistill.store.jsonl import read_jsonl

if TYPE_CHECKING:
    from pandas import DataFrame

Which = Literal["worse", "better", "longer", "shorter", "same", "all"]
SHOWN = 10
COMPARED = ("truth", "win", "reward", "length_tokens")


@dataclass(frozen=True)
class Samples:
    """Prompts with the answers of the start and a student, the clearest cases first.

    Attributes:
        which: what was asked for, see `Run.samples`.
        rows: all that were found; a notebook shows the first ten.
    """

    which: Which
    student: str
    rows: tuple[SamplePrompt, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def to_pandas(self) -> "DataFrame":
        """A row for each prompt, the start's columns with the suffix `_start`."""
        import pandas

        columns = [name for name, _ in _row(SamplePrompt("", ()), self.student)]
        return pandas.DataFrame([dict(_row(one, self.student)) for one in self.rows], columns=columns)

    def _repr_html_(self) -> str:
        from aligndistill.reporting.notebook import samples_html

        shown = f", the first {SHOWN}" if len(self) > SHOWN else ""
        return samples_html(f"{self.student}, {self.which}: {len(self):,} prompts{shown}", self.rows[:SHOWN], self.student)


def _row(sample: SamplePrompt, student: str) -> Iterator[tuple[str, Any]]:
    yield from (("prompt_id", sample.id), ("prompt", sample.prompt))
    for author, suffix in ((START, "_start"), (student, "")):
        answer = sample.of(author)
        for name in ("text", "truth", "reward", "tokens", *(("win",) if not suffix else ())):
            yield f"{name}{suffix}", getattr(answer, name, None)


def samples(evaluation: Path, student: str, which: Which) -> Samples:
    """A student's samples of one sort, from the folder of the evaluation.

    Raises:
        ConfigError: there is no such student, or no such sort.
    """
    if which not in get_args(Which):
        raise ConfigError(f"samples: '{which}' is unknown. Ask for one of {', '.join(get_args(Which))}.")
    every = [one for one in sample_prompts(read_jsonl(evaluation / SCORED, ScoredAnswer)) if one.of(student) is not None]
    if not every:
        raise ConfigError(f"samples: no held-out answers of a student '{student}'. See `run.students` for those that there are.")
    known = next((name for name in MEASURES if any(gain(one, student, name) is not None for one in every)), None)
    keys: Mapping[str, Callable[[SamplePrompt], float | None]] = {
        "worse": lambda one: None if known is None else gain(one, student, known),
        "better": lambda one: None if known is None or (gained := gain(one, student, known)) is None else -gained,
        "longer": lambda one: -_longer(one, student),
        "shorter": lambda one: _longer(one, student),
    }
    if which in keys:
        found = [(key, one) for one in every if (key := keys[which](one)) is not None and key < 0]
        return Samples(which, student, tuple(one for _, one in sorted(found, key=lambda pair: pair[0])))
    return Samples(which, student, tuple(one for one in every if which == "all" or _is_same(one, student)))


def _longer(sample: SamplePrompt, student: str) -> int:
    """How many tokens the student's answer is longer than the start's; 0 without one of them."""
    ours, theirs = sample.of(student), sample.of(START)
    return (ours.tokens or 0) - (theirs.tokens or 0) if ours is not None and theirs is not None else 0


def _is_same(sample: SamplePrompt, student: str) -> bool:
    ours, theirs = sample.of(student), sample.of(START)
    return ours is not None and theirs is not None and ours.text == theirs.text


@dataclass(frozen=True)
class ComparedModel:
    """A measure of one model in two runs, over the prompts that both have: both values, and other minus base, paired."""

    base: float
    other: float
    difference: Mean


@dataclass(frozen=True)
class RunComparison:
    """Two runs.

    Attributes:
        notes: what is not comparable.
        cells: by model and measure.
    """

    title: str
    notes: tuple[str, ...]
    cells: Mapping[tuple[str, str], ComparedModel]

    def to_pandas(self) -> "DataFrame":
        """A row for each model and measure."""
        import pandas

        rows = [
            {"model": model, "measure": measure, "base": one.base, "other": one.other, **_named(one.difference)}
            for (model, measure), one in self.cells.items()
        ]
        return pandas.DataFrame(rows, columns=["model", "measure", "base", "other", "difference", "low", "high", "n"])

    def _repr_html_(self) -> str:
        from aligndistill.reporting.notebook import comparison_html

        return comparison_html(self.title, self.notes, self.cells)


def _named(difference: Mean) -> dict[str, float]:
    return {"difference": difference.mean, "low": difference.low, "high": difference.high, "n": difference.n}


def comparison(title: str, base: Path, other: Path, measures: Sequence[str], notes: Iterable[str]) -> RunComparison:
    """Compare the models of two evaluations by these measures, the folders of which are given."""
    first, second = _values(base), _values(other)
    cells = {}
    for model in (name for name in first if name in second):
        for measure in measures:
            before, after = first[model][measure], second[model][measure]
            difference = paired_difference(before, after)
            if difference is not None:
                shared = sorted(before.keys() & after.keys())
                first_mean, second_mean = (fmean(one[prompt] for prompt in shared) for one in (before, after))
                cells[model, measure] = ComparedModel(first_mean, second_mean, difference)
    prompts = [{prompt for of in run.values() for prompt in of["length_tokens"]} for run in (first, second)]
    shared_prompts = len(prompts[0] & prompts[1])
    if not shared_prompts:
        raise DataError("the two runs share no held-out prompts, so they cannot be compared.")
    if prompts[0] != prompts[1]:
        notes = (*notes, f"{shared_prompts:,} held-out prompts are shared, of {len(prompts[0]):,} and {len(prompts[1]):,}.")
    return RunComparison(title, tuple(notes), cells)


def _values(evaluation: Path) -> dict[str, defaultdict[str, dict[str, float]]]:
    """Author -> measure -> prompt -> mean over its answers."""
    found: dict[str, defaultdict[str, defaultdict[str, list[float]]]] = {}
    for answer in read_jsonl(evaluation / SCORED, ScoredAnswer):
        of_author = found.setdefault(answer.author, defaultdict(lambda: defaultdict(list)))
        for measure in COMPARED:
            value = getattr(answer, measure)
            if value is not None and not (measure == "win" and answer.author == START):
                of_author[measure][answer.prompt_id].append(value)
    return {
        author: defaultdict(dict, {name: {prompt: fmean(some) for prompt, some in of.items()} for name, of in by.items()})
        for author, by in found.items()
    }
