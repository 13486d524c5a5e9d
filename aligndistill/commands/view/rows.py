"""Lines of JSON files as values, wherever they came from, and verdicts among them."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from aligndistill.evaluation.wins import PromptVerdicts

Pair = tuple[str, str]


def rows_of(path: Path) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Offset, size and value of each JSON line; others are skipped."""
    if not path.is_file():
        return
    offset = 0
    with path.open("rb") as file:
        for line in file:
            value = _value(line)
            if isinstance(value, dict):
                yield offset, len(line), value
            offset += len(line)


def _value(line: bytes) -> Any:
    """The JSON of a line; None if it is none. The faster reader refuses lone surrogates, which Python's takes."""
    try:
        return from_json(line)
    except ValueError:
        with suppress(ValueError):
            return json.loads(line)


def storable(text: str) -> str:
    """A text as SQLite stores it: a lone surrogate, which is no character, becomes a question mark."""
    return text.encode("utf-8", "replace").decode()


def read_verdict(row: Mapping[str, Any]) -> tuple[str, str, float | None]:
    """Ids of first and second, and P(first is better); of a grade the answer's id, nothing, and its value. None if unreadable."""
    if row["kind"] == "grade":
        return row["candidate"], "", row["value"]
    if row["outcome"] == "unparsed":
        return row["first"], row["second"], None
    p = row["probability_first"]
    return row["first"], row["second"], {"first": 1.0, "tie": 0.5, "second": 0.0}[row["outcome"]] if p is None else p


def prompt_verdicts(rows: Iterable[tuple[str, str, float | None]]) -> PromptVerdicts:
    """The readable verdicts on a prompt's answers, of rows as `read_verdict` gives them."""
    found = PromptVerdicts()
    for first, second, value in rows:
        if value is None:
            continue
        if second:
            found.comparisons.setdefault((first, second), []).append(value)
        else:
            found.grades[first] = value
    return found
