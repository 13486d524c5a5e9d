"""`aligndistill judge export`: a run's rankings in the form of other tools."""

from pathlib import Path
from typing import Literal

from aligndistill.commands.audit import _write
from aligndistill.data.exports import distilabel_row, rankings_row, rewardbench_rows, ultrafeedback_row
from aligndistill.errors import DataError
from aligndistill.records import Ranking, group_by_prompt
from aligndistill.runs.folder import _folders
from aligndistill.stages.verdicts import read_verdicts
from aligndistill.store.jsonl import read_jsonl

ExportFormat = Literal["distilabel", "rankings", "rewardbench", "ultrafeedback"]


def export_run(path: Path, output: Path, form: ExportFormat) -> int:
    """Write a run's rankings in another tool's shape, JSONL; returns how many rows.

    Raises:
        DataError: the run has no rankings.
    """
    folders = _folders(path)
    if "rankings" not in folders:
        raise DataError(f"{path}: this run has no rankings yet. Run it at least `--until rankings`.")
    verdicts = group_by_prompt(read_verdicts(folders["verdicts"]) if "verdicts" in folders else ())
    rankings = read_jsonl(folders["rankings"] / "rankings.jsonl", Ranking)
    match form:
        case "distilabel":
            return _write(output, (distilabel_row(ranking, verdicts[ranking.prompt_id]) for ranking in rankings))
        case "rankings":
            return _write(output, map(rankings_row, rankings))
        case "rewardbench":
            return _write(output, (row for ranking in rankings for row in rewardbench_rows(ranking)))
        case "ultrafeedback":
            return _write(output, (ultrafeedback_row(ranking, verdicts[ranking.prompt_id]) for ranking in rankings))
