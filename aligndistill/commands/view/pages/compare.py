"""Two runs or more: what differs in their settings, paired differences over shared prompts, and prompts that changed most."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from statistics import fmean
from typing import Any

from aligndistill.commands.view.pages.samples import prompt_text, shortened
from aligndistill.commands.view.query import Index
from aligndistill.commands.view.run_folder import RunFolder
from aligndistill.commands.view.site import Page, Site, UnknownPage
from aligndistill.commands.view.svg import scatter
from aligndistill.evaluation.intervals import Mean, bootstrap_mean

MOST_RUNS = 6
SHOWN = 10
COMPARED = ("truth", "win", "reward", "length", "kl")
NOT_COMPARED = ("runtime", "name")


def compare_page(site: Site, identities: Sequence[str], values: Mapping[str, str]) -> Page:
    """The page; the first run is the base.

    Raises:
        UnknownPage: a run is unknown, or there are fewer than two.
    """
    runs = [site.run(identity) for identity in dict.fromkeys(identities)][:MOST_RUNS]
    if len(runs) < 2:
        raise UnknownPage("Choose two runs or more to compare.")
    with ExitStack() as stack:
        indexes = [stack.enter_context(site.index(run)) for run in runs]
        base, *others = indexes
        models = [name for name in base.models if any(name in other.models for other in others)]
        model = values.get("m", "")
        model = (
            model if model in models else next(iter([name for name in models if name not in ("start", "teacher")] or models), "")
        )
        measure = values.get("by", "")
        measure = measure if measure in base.measures else next(iter(base.measures), "")
        changed = _changed(base, others[0], model, measure) if model and measure else []
        points = [(before, after) for _, before, after in changed]
        ordered = sorted(changed, key=lambda one: one[1] - one[2])
        return Page(
            "compare.html",
            {
                "runs": runs,
                "notes": list(_notes(runs, indexes)),
                "settings": list(_settings(runs)),
                "rows": [_row(name, base, others) for name in models],
                "measures": [name for name in COMPARED if name in base.measures],
                "models": models,
                "model": model,
                "measure": measure,
                "plot": scatter(points, f"{measure} in {runs[0].id}", f"{measure} in {runs[1].id}"),
                "shared": len(points),
                "better": _shown(base, [one for one in ordered if one[2] > one[1]][:SHOWN]),
                "worse": _shown(base, [one for one in ordered[::-1] if one[2] < one[1]][:SHOWN]),
            },
        )


def _notes(runs: Sequence[RunFolder], indexes: Sequence[Index]) -> Iterator[str]:
    """What cannot be compared, said first."""
    judges = [run.config.get("evaluation", {}).get("judge") for run in runs]
    labelling = [run.config.get("judge") for run in runs]
    if any(one != labelling[0] for one in labelling) or any(one != judges[0] for one in judges):
        yield "The judges differ: win rates of these runs are not comparable."
    held_out = [{row[0] for row in index.db.execute("select id from prompts where held_out")} for index in indexes]
    for run, prompts in zip(runs[1:], held_out[1:], strict=True):
        if prompts != held_out[0]:
            shared = len(prompts & held_out[0])
            yield f"{run.id} has other held-out prompts than {runs[0].id}: {shared} of {len(held_out[0])} are shared."


def _settings(runs: Sequence[RunFolder]) -> Iterator[tuple[str, list[str]]]:
    """The keys whose values differ, with each run's value."""
    flat = [dict(_flat(run.config)) for run in runs]
    for key in dict.fromkeys(key for one in flat for key in one):
        values = [one.get(key, "not set") for one in flat]
        if len(set(values)) > 1 and key.split(".")[0] not in NOT_COMPARED:
            yield key, values


def _flat(values: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(values, dict) and values:
        for key, value in values.items():
            yield from _flat(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, "null" if values is None else str(values)


def _row(model: str, base: Index, others: Sequence[Index]) -> dict[str, Any]:
    """A model's means in the base run, and the paired difference of every other run."""
    first = _figures(base, model)
    cells = []
    for measure in (name for name in COMPARED if name in base.measures):
        known = [value for cell in first.values() if (value := cell[measure]) is not None]
        differences = [difference(first, _figures(other, model), measure) for other in others]
        cells.append((fmean(known) if known else None, differences))
    return {"model": model, "cells": cells}


def _figures(index: Index, model: str) -> dict[str, dict[str, float | None]]:
    """Prompt id -> measure -> value."""
    if model not in index.models:
        return {}
    rows = index.db.execute(
        f"select p.id, {', '.join(COMPARED)} from cells c join prompts p on p.n = c.prompt where c.author = ?",
        (index.models[model],),
    )
    return {identity: dict(zip(COMPARED, values, strict=True)) for identity, *values in rows}


def difference(
    first: Mapping[str, Mapping[str, float | None]], second: Mapping[str, Mapping[str, float | None]], measure: str
) -> Mean | None:
    """The mean of second less first over the prompts that have both, with a bootstrap interval over prompts."""
    differences = []
    for prompt in sorted(first.keys() & second.keys()):
        before, after = first[prompt][measure], second[prompt][measure]
        if before is not None and after is not None:
            differences.append(after - before)
    return bootstrap_mean(differences) if differences else None


def _changed(base: Index, other: Index, model: str, measure: str) -> list[tuple[str, float, float]]:
    first, second = _figures(base, model), _figures(other, model)
    found = []
    for prompt in first.keys() & second.keys():
        before, after = first[prompt].get(measure), second[prompt].get(measure)
        if before is not None and after is not None:
            found.append((prompt, before, after))
    return sorted(found)


def _shown(index: Index, changed: Sequence[tuple[str, float, float]]) -> list[dict[str, Any]]:
    found = []
    for prompt, before, after in changed:
        number = index.number_of(prompt)
        if number is not None:
            (row,) = index.prompts([number])
            found.append({"id": prompt, "text": shortened(prompt_text(row["record"])), "before": before, "after": after})
    return found
