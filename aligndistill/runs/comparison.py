"""Two runs compared for a notebook: each model's figures, paired over the held-out prompts that both runs have."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from aligndistill.errors import DataError
from aligndistill.evaluation.intervals import Mean, paired_difference
from aligndistill.reporting.samples import START
from aligndistill.stages.files import SCORED
from aligndistill.stages.scored_answers import ScoredAnswer
from aligndistill.store.jsonl import read_jsonl

if TYPE_CHECKING:
    from pandas import DataFrame

COMPARED = ("truth", "win", "reward", "length_tokens")


@dataclass(frozen=True)
class ComparedModel:
    """A measure of one model in two runs, over the prompts that both have: both values, and other minus base, paired."""

    base: float
    other: float
    difference: Mean


@dataclass(frozen=True)
class ComparedRuns:
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


def comparison(title: str, base: Path, other: Path, excluded: Mapping[str, str]) -> ComparedRuns:
    """Compare the models of two evaluations, whose folders are given.

    Args:
        excluded: the measures that cannot be compared, and why.
    """
    first, second = _values(base), _values(other)
    measures = [name for name in COMPARED if name not in excluded]
    notes = list(excluded.values())
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
        notes.append(f"{shared_prompts:,} held-out prompts are shared, of {len(prompts[0]):,} and {len(prompts[1]):,}.")
    return ComparedRuns(title, tuple(notes), cells)


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
