"""`aligndistill compare`: runs beside a base run, paired over the prompts that they share."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from aligndistill.commands.compare.differences import (
    COMPARED,
    changed,
    difference,
    excluded_measures,
    figures,
    known,
    notes,
    same_answers,
    settings,
    shared_models,
)
from aligndistill.commands.view.index import index_of
from aligndistill.commands.view.query import Index, opened
from aligndistill.commands.view.run_folder import RunFolder, find_runs, is_run
from aligndistill.errors import ConfigError, DataError
from aligndistill.evaluation.intervals import Mean
from aligndistill.processes.progress import doing

FINGERPRINT_SHOWN = 6
SAME_ANSWERS = "same answers"
NOT_COMPARABLE = "not comparable"


@dataclass(frozen=True)
class ComparedMeasure:
    """One measure of one model in one run.

    Attributes:
        value: the mean over the run's own prompts; None if it was not measured.
        difference: over the base, paired over shared prompts; None for the base, and where it cannot be compared.
        why: why it cannot be compared; empty if it can, or was not measured.
    """

    value: float | None
    difference: Mean | None = None
    why: str = ""


@dataclass(frozen=True)
class ChangedPrompt:
    """A prompt on which a model is worse than in the base, with its first answer in both runs."""

    prompt: str
    text: str
    before: float
    after: float
    answers: tuple[str, str]


@dataclass(frozen=True)
class RunComparison:
    """Runs compared; the first one is the base.

    Attributes:
        runs: a name for each, with the beginning of the fingerprint of its last stage: two runs may have one name.
        models: model -> measure -> its values, one for each run.
        seconds: model -> training time in each run; None where it is not trained.
        shared: how many held-out prompts each run shares with the base.
        worse: by model and measure, the prompts that got most worse in the second run.
    """

    runs: tuple[str, ...]
    notes: tuple[str, ...]
    settings: Mapping[str, Sequence[str]]
    models: Mapping[str, Mapping[str, tuple[ComparedMeasure, ...]]]
    seconds: Mapping[str, tuple[float | None, ...]]
    shared: tuple[int, ...]
    worse: tuple[ChangedPrompt, ...] = ()
    worse_of: tuple[str, str] = ("", "")


def require_runs(paths: Sequence[Path]) -> list[RunFolder]:
    """The runs in these folders.

    Raises:
        DataError: a folder is not a run's.
        ConfigError: there is only one.
    """
    for path in paths:
        if not is_run(path):
            below = path if path.is_dir() else path.parent
            found = [str(below / one.name) for one in find_runs([], below).values()]
            listed = f" Runs in {below}: {', '.join(found)}." if found else f" There are no runs in {below}."
            raise DataError(f"{path} is not a run's folder.{listed}")
    runs = list(find_runs(paths, Path()).values())
    order = [path.resolve() for path in paths]
    runs.sort(key=lambda run: order.index(run.path))
    if len(runs) < 2:
        beside = [str(paths[0].parent / one.name) for one in find_runs([], paths[0].parent).values() if one.name != paths[0].name]
        advice = f" Runs beside it: {', '.join(beside)}." if beside else ""
        raise ConfigError(f"give two runs or more to compare; the first is the base.{advice}")
    return runs


def compare(paths: Sequence[Path], sort: str | None = None, worse: int = 0) -> RunComparison:
    """Compare runs with the first one.

    Args:
        sort: a measure: models whose difference in it is largest come first, and `worse` goes by it.
        worse: how many prompts that got worse to find.

    Raises:
        DataError: a folder is not a run's.
        ConfigError: there is only one, or no such measure.
    """
    runs = require_runs(paths)
    with doing("reading the runs"), ExitStack() as stack:
        indexes = [stack.enter_context(opened(index_of(run))) for run in runs]
        measures = [name for name in COMPARED if any(name in index.measures for index in indexes)]
        if sort is not None and sort not in measures:
            raise ConfigError(f"--sort {sort}: these runs have no such measure. Measured: {', '.join(measures) or 'nothing'}.")
        names = shared_models(indexes[0], indexes[1:])
        excluded = excluded_measures(runs)
        models = {name: {one: _compared(name, one, runs, indexes, excluded) for one in measures} for name in names}
        if sort is not None:
            names.sort(key=lambda name: -_gain(models[name][sort]))
        of = _worst_of(names, models, sort or next(iter(measures), ""))
        prompts = _worse(runs, indexes, *of, worse) if worse and all(of) else ()
        held_out = [
            {row[0] for row in one.db.execute("select distinct p.id from cells c join prompts p on p.n = c.prompt")}
            for one in indexes
        ]
        return RunComparison(
            runs=tuple(map(label, runs)),
            notes=tuple(notes(runs, indexes)),
            settings=dict(settings(runs)),
            models={name: models[name] for name in names},
            seconds={name: tuple(_seconds(run, name) for run in runs) for name in names},
            shared=tuple(len(prompts & held_out[0]) for prompts in held_out),
            worse=prompts,
            worse_of=of,
        )


def label(run: RunFolder) -> str:
    """`quickstart@33f22b`."""
    last = next((folder for name, folder in reversed(run.folders.items()) if name in ("report", "evaluation")), None)
    last = last or next(reversed(run.folders.values()), None)
    return run.id if last is None else f"{run.id}@{last.name.rpartition('-')[2][:FINGERPRINT_SHOWN]}"


def _compared(
    model: str, measure: str, runs: Sequence[RunFolder], indexes: Sequence[Index], excluded: Mapping[str, str]
) -> tuple[ComparedMeasure, ...]:
    of_runs = [figures(index, model) for index in indexes]
    found = []
    for number, (run, of_model) in enumerate(zip(runs, of_runs, strict=True)):
        values = list(known(of_model, measure).values())
        value = fmean(values) if values else None
        if number == 0 or value is None:
            found.append(ComparedMeasure(value))
        elif measure in excluded:
            found.append(ComparedMeasure(value, why=NOT_COMPARABLE))
        elif same_answers(model, runs[0], run):
            found.append(ComparedMeasure(value, why=SAME_ANSWERS))
        else:
            found.append(ComparedMeasure(value, difference(of_runs[0], of_model, measure)))
    return tuple(found)


def _gain(of_runs: Sequence[ComparedMeasure]) -> float:
    """The largest difference over the base."""
    return max((one.difference.mean for one in of_runs if one.difference is not None), default=float("-inf"))


def _worst_of(names: Sequence[str], models: Mapping[str, Mapping[str, Sequence[ComparedMeasure]]], measure: str) -> tuple[str, str]:
    """The student whose measure fell most in the second run, or rose least, and the measure; the first if none can be compared."""
    students = [name for name in names if name not in ("start", "teacher")] or list(names)
    if not students or not measure:
        return "", ""

    def gain(name: str) -> float:
        found = models[name][measure][1].difference
        return float("inf") if found is None else found.mean

    return min(students, key=gain), measure


def _worse(runs: Sequence[RunFolder], indexes: Sequence[Index], model: str, measure: str, count: int) -> tuple[ChangedPrompt, ...]:
    both = changed(figures(indexes[0], model), figures(indexes[1], model), measure)
    fell = sorted((one for one in both if one[2] < one[1]), key=lambda one: (one[2] - one[1], one[0]))[:count]
    return tuple(
        ChangedPrompt(
            prompt,
            _prompt_text(indexes[0], prompt),
            before,
            after,
            (_said(indexes[0], prompt, model), _said(indexes[1], prompt, model)),
        )
        for prompt, before, after in fell
    )


def _prompt_text(index: Index, prompt: str) -> str:
    number = index.number_of(prompt)
    assert number is not None, "the base has figures for it"
    (row,) = index.prompts([number])
    return "\n\n".join(message["content"] for message in row["record"]["messages"])


def _said(index: Index, prompt: str, model: str) -> str:
    """The model's first answer."""
    rows = index.rows(
        "select a.file, a.offset, a.size from answers a join prompts p on p.n = a.prompt where p.id = ? and a.author = ? "
        "order by a.sample limit 1",
        (prompt, index.models[model]),
    )
    return str(rows[0]["record"]["text"]) if rows else ""


def _seconds(run: RunFolder, model: str) -> float | None:
    seconds: Any = run.manifest(f"student-{model}").get("metrics", {}).get("train_seconds")  # as in the report
    return seconds if isinstance(seconds, int | float) else None
