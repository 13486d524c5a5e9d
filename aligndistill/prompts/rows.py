"""A numbered row of a data set, and what is wrong with one that cannot be used."""

from dataclasses import dataclass
from typing import Any


class BadRow(Exception):
    """A row that cannot be used.

    Attributes:
        reason: a few words, the same for every row with this fault: bad rows are counted by it.
        detail: more about this one row, for the error that stops a run.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason} ({detail})" if detail else reason)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Row:
    """One row as it was read.

    Attributes:
        where: file (or data set) and row number, from 1, as in `data/x.jsonl row 17`. In JSONL the number is the line's; in
            CSV the header is row 1, as spreadsheets count.
        values: column name to value; empty when the row could not be read.
        fault: why the row could not be read, or None.
    """

    where: str
    values: dict[str, Any]
    fault: BadRow | None = None
