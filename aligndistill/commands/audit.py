"""`aligndistill judge audit`: how reliable a judge is."""

from pathlib import Path

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from aligndistill.commands.output import print_json, print_table
from aligndistill.config.audit import AuditSettings
from aligndistill.config.data import Source
from aligndistill.config.load import load_config
from aligndistill.config.resolve import resolved
from aligndistill.data.loading import load_judgments
from aligndistill.errors import DataError, JudgeError
from aligndistill.evaluation.votes import VoteMetrics
from aligndistill.processes.progress import doing
from aligndistill.reporting.audit_rows import audit_table
from aligndistill.reporting.vote_rows import vote_rows
from aligndistill.stages.audit import AuditResult, audit_labelling, read_labelling, recorded
from aligndistill.store.run_folder import judged_stages, last_round


def print_audit(path: Path, labels: Path | None, as_json: bool = False) -> None:
    """Audit a run and print the metrics.

    Args:
        labels: a file of labels, or `votes` for the run's own votes.
        as_json: print one JSON object instead of tables.

    Raises:
        DataError: there are no verdicts to audit.
        JudgeError: a limit of `audit.stop` is exceeded.
    """
    by_votes = labels == Path("votes") and path.is_dir()
    with doing("reading verdicts"):
        result = audit_run(path, None if by_votes else labels)
    votes = vote_metrics_of(path) if by_votes else None
    if as_json:
        about = {"warnings": result.warnings, "stops": result.stops, "votes": votes.model_dump(mode="json") if votes else None}
        print_json("judge audit", {"metrics": result.metrics.model_dump(mode="json"), **about})
    else:
        print_table(audit_table(result.metrics))
        if votes is not None:
            print_table(vote_table(votes))
        for warning in result.warnings:
            typer.echo(f"warning: {warning}")
    if result.stops:
        raise JudgeError(f"the judge cannot be trusted: {'; '.join(result.stops)}.")


def vote_metrics_of(path: Path) -> VoteMetrics:
    """What people's blind votes say of the judge, on the held-out answers of a run.

    Raises:
        DataError: there are no votes.
    """
    from aligndistill.runs.votes import measured_votes  # imports what scores answers

    metrics = measured_votes(path)
    if metrics is None:
        raise DataError(f"{path} has no votes on held-out answers yet. Give some with `aligndistill view {path}`.")
    return metrics


def vote_table(metrics: VoteMetrics) -> Table:
    """The votes' metrics for a terminal."""
    table = Table(title=Text(f"{metrics.votes:,} votes, {metrics.headline:,} of them blind and at random"), title_justify="left")
    table.box, table.padding, table.show_edge = SIMPLE_HEAD, (0, 1, 0, 0), False
    for name in ("people and judge", "share", "n", "compare with"):
        table.add_column(name, justify="right" if name == "n" else "left")
    for row in vote_rows(metrics):
        table.add_row(Text(row.label), Text(row.text), Text(f"{row.n:,}"), Text(row.meaning))
    return table


def audit_run(path: Path, labels: Path | None) -> AuditResult:
    """Audit a run (of its rounds the last finished one), or a file of recorded verdicts (preferences or rankings of any format).

    Args:
        labels: a file of labels that replaces the config's labels.

    Raises:
        DataError: there are no verdicts to audit.
    """
    given = Source(path=str(labels)) if labels else None
    if path.is_file():
        judgments = load_judgments(Source(path=str(path)))
        return audit_labelling(recorded(judgments.all().records), AuditSettings(labels=given))
    folders = last_round(judged_stages(path))
    settings = resolved(load_config([path / "config.yaml"])).audit_settings
    return audit_labelling(read_labelling(folders), settings.model_copy(update={"labels": given}) if given else settings)
