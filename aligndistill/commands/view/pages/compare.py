"""Two runs or more: what differs in their settings, paired differences over shared prompts, and prompts that changed most."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from statistics import fmean
from typing import Any

from aligndistill.commands.compare.differences import COMPARED, changed, difference, figures, known, notes, settings, shared_models
from aligndistill.commands.view.pages.samples import prompt_text, shortened
from aligndistill.commands.view.query import Index
from aligndistill.commands.view.sample_query import SORTS
from aligndistill.commands.view.site import Page, Site, UnknownPage, is_none
from aligndistill.commands.view.svg import scatter

MOST_RUNS = 6
SHOWN = 10


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
        models = shared_models(base, others)
        model = values.get("m", "")
        rows = [_row(name, base, others) for name in models]
        model = model if model in models else _first_changed(rows)
        measure = values.get("by", "")
        measure = measure if measure in base.measures else next(iter(base.measures), "")
        both = changed(figures(base, model), figures(others[0], model), measure) if model and measure else []
        points = [(before, after) for _, before, after in both]
        ordered = sorted(both, key=lambda one: one[1] - one[2])
        return Page(
            "compare.html",
            {
                "runs": runs,
                "notes": list(notes(runs, indexes)),
                "settings": list(settings(runs)),
                "rows": rows,
                "titles": SORTS,
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


def _first_changed(rows: Sequence[Mapping[str, Any]]) -> str:
    """The first student that differs between the runs; else the first one, or the start."""
    students = [row for row in rows if row["model"] not in ("start", "teacher")] or list(rows)
    differ = [row for row in students if any(one and not is_none(one) for _, found in row["cells"] for one in found)]
    return next((str(row["model"]) for row in [*differ, *students]), "")


def _row(model: str, base: Index, others: Sequence[Index]) -> dict[str, Any]:
    """A model's means in the base run, and the paired difference of every other run."""
    first = figures(base, model)
    cells = []
    for measure in (name for name in COMPARED if name in base.measures):
        values = list(known(first, measure).values())
        differences = [difference(first, figures(other, model), measure) for other in others]
        cells.append((fmean(values) if values else None, differences))
    return {"model": model, "cells": cells}


def _shown(index: Index, prompts: Sequence[tuple[str, float, float]]) -> list[dict[str, Any]]:
    found = []
    for prompt, before, after in prompts:
        number = index.number_of(prompt)
        if number is not None:
            (row,) = index.prompts([number])
            found.append({"id": prompt, "text": shortened(prompt_text(row["record"])), "before": before, "after": after})
    return found
