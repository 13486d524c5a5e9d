"""What `aligndistill judge` does: look at a judge's verdicts, hand them to other tools, ask by batch file."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from aligndistill.config import Audit, Judge, RunConfig, Source
from aligndistill.config_audit import AuditProbes
from aligndistill.config_files import load_config
from aligndistill.config_judges import judging_author
from aligndistill.errors import ConfigError, DataError
from aligndistill.pipeline import pipeline
from aligndistill.preferences.exports import distilabel_row, rankings_row, rewardbench_rows, ultrafeedback_row
from aligndistill.prompts.loading import load_judgments
from aligndistill.records import Ranking, group_by_prompt
from aligndistill.runs import run
from aligndistill.stages.audit import AuditResult, audit_labelling, read_labelling, recorded
from aligndistill.stages.batches import Imported, import_answers, open_questions, read_results
from aligndistill.stages.open_models import Servers
from aligndistill.stages.stage import Work, work_of
from aligndistill.stages.verdicts import read_verdicts
from aligndistill.store.jsonl import read_jsonl

ExportFormat = Literal["distilabel", "rankings", "rewardbench", "ultrafeedback"]


def audit_run(path: Path, labels: Path | None) -> AuditResult:
    """Audit a run by what its folder names, or a file of recorded verdicts (preferences or rankings of any format).

    Args:
        labels: a file of labels to use in place of the config's.

    Raises:
        DataError: there is nothing there to audit.
    """
    given = Source(path=str(labels)) if labels else None
    if path.is_file():
        judgments = load_judgments(Source(path=str(path)))
        return audit_labelling(recorded(judgments.all().records), Audit(labels=given), None, None)
    folders = _folders(path)
    config = load_config([path / "config.yaml"], [])
    settings = config.audit.model_copy(update={"labels": given}) if given else config.audit
    return audit_labelling(read_labelling(folders), settings, config.evaluation.truth, judging_author(config.judge))


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


def export_batch(config: RunConfig, output: Path, logprobs: bool) -> int:
    """Make the candidates, and write the questions that have no verdict yet as a batch file; returns how many.

    Raises:
        ConfigError: the config has no judge behind a server.
    """
    work, judge, servers, probes = _labelling(config)
    return _write(output, open_questions(work, judge, servers, probes, logprobs))


def import_batch(config: RunConfig, results: Sequence[Path]) -> Imported:
    """Take a batch's answers, from one or several files, as the judge's.

    Raises:
        ConfigError: the config has no judge behind a server.
        DataError: a file that cannot be read.
    """
    answers = read_results(results)
    work, judge, servers, probes = _labelling(config)
    return import_answers(work, judge, servers, probes, answers)


def _labelling(config: RunConfig) -> tuple[Work, Judge, Servers, AuditProbes]:
    """What the stage `verdicts` is given, with the candidates made."""
    by_name = {stage.name: stage for stage in pipeline(config).stages}
    if "verdicts" not in by_name:
        raise ConfigError("this config asks no judge to label: it has ready-made rankings.")
    run(config, until="candidates")
    stage = by_name["verdicts"]
    judge, servers, _, probes = stage.settings
    return work_of(stage, config.runtime), judge, servers, probes


def _folders(run_folder: Path) -> dict[str, Path]:
    try:
        folders = json.loads((run_folder / "artifacts.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"{run_folder}: no run's folder and no file. Give the folder of a run, such as runs/quickstart, or a file of judgments."
        ) from None
    found = {name: Path(folder) for name, folder in folders.items()}
    gone = [str(folder) for folder in found.values() if not folder.is_dir()]
    if gone:
        raise DataError(f"{gone[0]}: not there (looked from {Path.cwd()}). Give the command where the run was started.")
    if not {"verdicts", "rankings"} & found.keys():
        raise DataError(f"{run_folder}: this run has no verdicts yet. Run it at least `--until verdicts`.")
    return found


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")
            count += 1
    return count
