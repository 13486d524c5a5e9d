"""`aligndistill judge export`: a run's rankings, prompts and answers in the formats of other tools, with a card beside them."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from aligndistill.data.answer_exports import answer_of, distilabel_answer_row, easydistill_row, messages_row, prompt_row
from aligndistill.data.exports import distilabel_row, rankings_row, rewardbench_rows, ultrafeedback_row
from aligndistill.errors import DataError
from aligndistill.records import Demonstration, Prompt, Ranking, group_by_prompt
from aligndistill.reporting.dataset_card import MARK, dataset_card
from aligndistill.reporting.provenance import read_provenance
from aligndistill.runs.folder import stage_folders
from aligndistill.runs.provenance import PROVENANCE
from aligndistill.stages.files import DEMONSTRATIONS, PROMPTS, RANKINGS
from aligndistill.stages.verdicts import read_verdicts
from aligndistill.store.jsonl import read_jsonl
from aligndistill.store.run_folder import finished_stages

RankedFormat = Literal["distilabel", "rankings", "rewardbench", "ultrafeedback"]
AnswerFormat = Literal["messages", "prompts", "easydistill", "distilabel-sft"]
ExportFormat = RankedFormat | AnswerFormat


def export_run(path: Path, output: Path, form: ExportFormat) -> int:
    """Write what a run has as JSONL in another tool's format, with a README.md beside it; returns the number of rows.

    Raises:
        DataError: the run does not have what this format holds.
    """
    match form:
        case "messages" | "prompts" | "easydistill" | "distilabel-sft":
            count = _export_answers(path, output, form)
        case _:
            count = _export_rankings(path, output, form)
    _write_card(path, output, form, count)
    return count


def _export_answers(path: Path, output: Path, form: AnswerFormat) -> int:
    """The training prompts, or the answers to them: the run's demonstrations if it has made some, else the best of each ranking."""
    folders = finished_stages(path)
    if form == "prompts":
        found = next((folders[name] for name in ("filters", "prompts") if name in folders), None)
        if found is None:
            raise DataError(f"{path}: this run has no prompts yet. Run it at least `--until prompts`.")
        prompts = read_jsonl(found / PROMPTS, Prompt)
        return write_rows(output, (prompt_row(one.messages) for one in prompts if one.split == "train"))
    records: Iterator[Demonstration | Ranking]
    made = [folder for folder in folders.values() if (folder / DEMONSTRATIONS).is_file()]
    if made:
        records = read_jsonl(made[-1] / DEMONSTRATIONS, Demonstration)
    elif "rankings" in folders:
        records = read_jsonl(folders["rankings"] / RANKINGS, Ranking)
    else:
        raise DataError(f"{path}: this run has neither demonstrations nor rankings yet. Run it at least `--until rankings`.")
    known = read_provenance(path / PROVENANCE)
    models = {one.name: (one.model, one.server or "local") for one in (known.origins.models if known else ())}
    learned = (one for one in records if one.split == "train" and getattr(one, "task", "answer") == "answer")
    answers = (answer_of(one, models, f"aligndistill {path.name}") for one in learned)
    match form:
        case "messages":
            return write_rows(output, map(messages_row, answers))
        case "easydistill":
            return write_rows(output, map(easydistill_row, answers))
        case "distilabel-sft":
            return write_rows(output, map(distilabel_answer_row, answers))


def _write_card(path: Path, output: Path, form: ExportFormat, rows: int) -> None:
    """A README.md beside the file, unless there is one that somebody else wrote."""
    card, known = output.parent / "README.md", read_provenance(path / PROVENANCE)
    if known is None or (card.exists() and MARK not in card.read_text(encoding="utf-8", errors="replace")):
        return
    with output.open(encoding="utf-8") as file:
        example = json.dumps(json.loads(file.readline() or "{}"), indent=2, ensure_ascii=False)
    card.write_text(dataset_card(known, output.name, form, rows, example), encoding="utf-8", errors="replace")


def _export_rankings(path: Path, output: Path, form: RankedFormat) -> int:
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
