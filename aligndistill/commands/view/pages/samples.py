"""The list of samples: a row for each prompt, with filters, sorting and paging; and the same as JSONL, CSV and preference pairs."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from math import ceil
from pathlib import Path
from typing import Any

from aligndistill.commands.view.flags import CELL_FILTERS, PROMPT_FILTERS
from aligndistill.commands.view.query import Index, opened
from aligndistill.commands.view.run_folder import RunFolder
from aligndistill.commands.view.sample_query import HUMAN_FILTERS, MEASURES, PAGE_ROWS, SORTS, SPLITS, SampleQuery
from aligndistill.commands.view.site import Page, Site
from aligndistill.records import Message, plain_prompt

PROMPT_CHARACTERS = 160
BATCH_ROWS = 500


def samples_page(site: Site, run: RunFolder, values: Mapping[str, str], rows: int = PAGE_ROWS) -> Page:
    """A page of the prompts that the query finds."""
    with site.index(run) as index:
        query = SampleQuery.read(values, index.models)
        total = index.count(query)
        numbers = index.numbers(query, rows)
        cells = index.cells(numbers)
        shown = [
            {
                "id": prompt["id"],
                "prompt": shortened(prompt_text(prompt["record"])),
                "held_out": prompt["held_out"],
                "cells": {name: cells[prompt["n"]].get(name) for name in index.models if name not in query.hidden},
            }
            for prompt in index.prompts(numbers)
        ]
        return Page(
            "samples.html",
            {
                "run": run,
                "query": query,
                "searched": query.in_words(),
                "total": total,
                "rows": shown,
                "rows_a_page": rows,
                "pages": max(1, ceil(total / PAGE_ROWS)),
                "models": list(index.models),
                "shown_models": [name for name in index.models if name not in query.hidden],
                "measures": index.measures,
                "sorts": SORTS,
                "splits": SPLITS,
                "sources": index.sources(),
                "chips": _chips(index, query),
            },
        )


def _chips(index: Index, query: SampleQuery) -> list[dict[str, Any]]:
    """Each filter with how many prompts of the rest of the query it finds."""
    counts = filter_counts(index, query)
    labels = {name: (label, meaning) for name, (_, label, meaning) in {**CELL_FILTERS, **PROMPT_FILTERS}.items()}
    labels |= {name: (label, "by people's votes") for name, label in HUMAN_FILTERS.items()}
    if not index.votes.voted:
        labels = {name: label for name, label in labels.items() if name not in HUMAN_FILTERS}
    return [
        {
            "name": name,
            "label": label,
            "meaning": meaning,
            "count": counts[name],
            "on": name in query.filters,
            "url": query.toggled(name),
        }
        for name, (label, meaning) in labels.items()
        if counts[name] or name in query.filters
    ]


def filter_counts(index: Index, query: SampleQuery) -> dict[str, int]:
    """How many prompts each filter finds together with the rest of the query. Remembered while index and votes stay the same."""
    path = index.db.execute("pragma database_list").fetchone()[2]
    return dict(_counts(path, index.votes, replace(query, page=1, sort="", measure="", hidden=(), base="start")))


@lru_cache(maxsize=64)
def _counts(path: str, votes: Any, query: SampleQuery) -> tuple[tuple[str, int], ...]:
    with opened(Path(path), votes) as index:
        return tuple(index.filter_counts(query).items())


def prompt_text(record: Mapping[str, Any]) -> str:
    """A prompt's conversation as one text."""
    return plain_prompt([Message.model_validate(message) for message in record["messages"]])


def shortened(text: str) -> str:
    """The beginning of a text."""
    return text if len(text) <= PROMPT_CHARACTERS else text[: PROMPT_CHARACTERS - 1] + "…"


# ------------------------------------------------------------------------------------------------------------- downloads


def exported(site: Site, run: RunFolder, values: Mapping[str, str], form: str) -> Iterator[str]:
    """The prompts that a query finds with all answers, as `jsonl`, `csv` or `pairs` (chosen and rejected, as TRL reads them)."""
    with site.index(run) as index:
        query = SampleQuery.read(values, index.models)
        numbers = index.numbers(query, None)
        if form == "csv":
            yield _csv_line(["prompt_id", "prompt", "model", "sample", "text", *MEASURES])
        for begin in range(0, len(numbers), BATCH_ROWS):
            some = numbers[begin : begin + BATCH_ROWS]
            for prompt in index.prompts(some):
                yield from _as_lines(index, query, prompt, form)


def _as_lines(index: Index, query: SampleQuery, prompt: Mapping[str, Any], form: str) -> Iterator[str]:
    if form == "pairs":
        for pair in index.rows("select file, offset, size from pairs where prompt = ?", (prompt["n"],)):
            yield json.dumps(pair["record"], ensure_ascii=False) + "\n"
        return
    record = prompt["record"]
    answers = answers_of(index, prompt["n"], [name for name in index.models if name not in query.hidden])
    if form == "jsonl":
        rows = [{"model": one["model"], "sample": one["sample"], "text": one["text"], **_measures(one)} for one in answers]
        value = {"prompt_id": prompt["id"], "messages": record["messages"], "split": record["split"], "answers": rows}
        yield json.dumps(value, ensure_ascii=False) + "\n"
        return
    for one in answers:
        figures = ["" if value is None else value for value in _measures(one).values()]
        yield _csv_line([prompt["id"], prompt_text(record), one["model"], one["sample"], one["text"], *figures])


def _measures(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {name: answer[name] for name in MEASURES}


def answers_of(index: Index, number: int, models: list[str]) -> list[dict[str, Any]]:
    """Every answer to a prompt with its figures and text, in the order of the models."""
    names = {identity: name for name, identity in index.models.items()}
    found = index.rows("select * from answers where prompt = ? order by author, sample", (number,))
    for answer in found:
        answer["model"], answer["text"] = names[answer["author"]], answer["record"]["text"]
    return sorted((one for one in found if one["model"] in models), key=lambda one: (models.index(one["model"]), one["sample"]))


def _csv_line(values: list[Any]) -> str:
    """A line of CSV; a text that a spreadsheet would run as a formula gets an apostrophe in front."""
    safe = [f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" and value else value for value in values]
    line = io.StringIO()
    csv.writer(line).writerow(safe)
    return line.getvalue()
