"""Lines of JSON files as values, wherever they came from, and verdicts among them."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic_core import from_json

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


def win_probability(asked: Mapping[Pair, list[float | None]], one: str, other: str) -> float | None:
    """P(one beats other), as `PromptVerdicts.win_probability` of the evaluation says it."""
    grades = {pair[0]: values[-1] for pair, values in asked.items() if not pair[1]}
    a, b = grades.get(one), grades.get(other)
    if a is not None and b is not None:
        return 0.5 if a == b else float(a > b)
    forwards = [p for p in asked.get((one, other), []) if p is not None]
    backwards = [1 - p for p in asked.get((other, one), []) if p is not None]
    every = [*forwards, *backwards]
    return sum(every) / len(every) if every else None
