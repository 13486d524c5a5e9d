"""`aligndistill judge export`: a run's rankings, prompts or answers as one file in the format of another tool, with a card."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from aligndistill.commands.share.data import data_facts
from aligndistill.commands.share.rows import FORMATS, KINDS, rows_of
from aligndistill.reporting.card_text import Terms, has_our_part
from aligndistill.reporting.dataset_card import DataPart, dataset_card
from aligndistill.runs.provenance import PROVENANCE

RankedFormat = Literal["distilabel", "rankings", "rewardbench", "ultrafeedback"]
AnswerFormat = Literal["messages", "prompts", "easydistill", "distilabel-sft"]
ExportFormat = RankedFormat | AnswerFormat
EARLIER_MARK = "<!-- written by aligndistill; without this line the file is left as it is -->"


def export_run(path: Path, output: Path, form: ExportFormat) -> int:
    """Write what a run has as JSONL in another tool's format, with a README.md beside it; returns the number of rows.

    Rankings are written of both splits, prompts and answers of the training split.

    Raises:
        DataError: the run does not have what this format holds.
    """
    data = next(kind for kind in KINDS if form in FORMATS[kind])
    whole = data in ("rankings", "preferences")
    rows = [row for split, row in rows_of(path, data, form) if whole or split == "train"]
    count = write_rows(output, rows)
    _write_card(path, output, form, count, rows[0] if rows else {})
    return count


def _write_card(path: Path, output: Path, form: ExportFormat, rows: int, first: Mapping[str, Any]) -> None:
    """A README.md beside the file, unless there is one that somebody else wrote."""
    card = output.parent / "README.md"
    if not (path / PROVENANCE).is_file() or (card.exists() and not _is_ours(card)):
        return
    example = json.dumps(first, indent=2, ensure_ascii=False)
    files, size = {"train": output.name}, {"train": output.stat().st_size}
    part = DataPart("default", form, files, {"train": rows}, size, list(first), example)
    card.write_text(dataset_card(data_facts(path, [part], Terms())), encoding="utf-8", errors="replace")


def _is_ours(card: Path) -> bool:
    text = card.read_text(encoding="utf-8", errors="replace")
    return has_our_part(text) or EARLIER_MARK in text


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write rows as JSONL; returns their number."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")
            count += 1
    return count
