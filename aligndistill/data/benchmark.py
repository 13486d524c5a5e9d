"""Rows of RewardBench: a prompt, its correct and incorrect answers, and the subset of the row."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aligndistill.data.conversations import Messages
from aligndistill.data.files import BadRow
from aligndistill.data.formats import are_lists_of_texts, read_judged

TIES = "ties"
ALL = "all"
"""The subset of a row without `subset`."""


@dataclass(frozen=True)
class BenchmarkRow:
    """One question of the benchmark.

    Attributes:
        identity: the row's `id`; in the subset Ties it is `ref:N` (one right answer) or `tied:N` (several).
        pair: whether it is a version 1 row (one answer against another); version 2 has lists.
    """

    subset: str
    identity: str
    prompt: Messages
    chosen: tuple[str, ...]
    rejected: tuple[str, ...]
    pair: bool

    @property
    def in_ties(self) -> bool:
        """Whether it belongs to the subset Ties, which has its own scoring rule."""
        return self.subset.lower() == TIES


def read_benchmark_row(values: Mapping[str, Any]) -> BenchmarkRow:
    """A row with `prompt`, `chosen` and `rejected` (texts in version 1, lists in version 2), optionally `subset` and `id`.

    Raises:
        BadRow: not a row of this form, or a row of the subset Ties whose id is neither `ref:N` nor `tied:N`.
    """
    pair = not are_lists_of_texts(values.get("chosen"), values.get("rejected"))
    judged = read_judged(values, "preference" if pair else "rewardbench")
    texts = tuple(answer.text for answer in judged.answers)
    first_rejected = 1 if pair else len(values["chosen"])
    row = BenchmarkRow(
        subset=str(values.get("subset") or ALL),
        identity=str(values.get("id", "")),
        prompt=judged.prompt,
        chosen=texts[:first_rejected],
        rejected=texts[first_rejected:],
        pair=pair,
    )
    kind, _, number = row.identity.partition(":")
    if row.in_ties and not (kind in ("ref", "tied") and number):
        raise BadRow("the id of a row in Ties is neither ref:N nor tied:N", repr(row.identity))
    return row
