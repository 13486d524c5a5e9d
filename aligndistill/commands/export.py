"""`aligndistill judge export`: a run's rankings in the formats of other tools."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from aligndistill.data.exports import distilabel_row, rankings_row, rewardbench_rows, ultrafeedback_row
from aligndistill.errors import DataError
from aligndistill.records import Ranking, group_by_prompt
from aligndistill.runs.folder import stage_folders
from aligndistill.stages.verdicts import read_verdicts
from aligndistill.store.jsonl import read_jsonl

ExportFormat = Literal["distilabel", "rankings", "rewardbench", "ultrafeedback"]


def export_run(path: Path, output: Path, form: ExportFormat) -> int:
    """Write a run's rankings as JSONL in another tool's format; returns the number of rows.

    Raises:
        DataError: the run has no rankings.
    """
    folders = stage_folders(path)
    if "rankings" not in folders:
        raise DataError(f"{path}: this run has no rankings yet. Run it at least `--until rankings`.")
    verdicts = group_by_prompt(read_verdicts(folders["verdicts"]) if "verdicts" in folders else ())
    rankings = read_jsonl(folders["rankings"] / "rankings.jsonl", Ranking)
    match form:
        case "distilabel":
            return write_rows(output, (distilabel_row(ranking, verdicts[ranking.prompt_id]) for ranking in rankings))
        case "rankings":
            return write_rows(output, map(rankings_row, rankings))
        case "rewardbench":
            return write_rows(output, (row for ranking in rankings for row in rewardbench_rows(ranking)))
        case "ultrafeedback":
            return write_rows(output, (ultrafeedback_row(ranking, verdicts[ranking.prompt_id]) for ranking in rankings))


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write rows as JSONL; returns their number."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")
            count += 1
    return count
