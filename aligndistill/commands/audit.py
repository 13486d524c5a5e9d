"""`aligndistill judge audit`: how far a judge can be trusted."""

from pathlib import Path

import typer

from aligndistill.commands.output import print_table
from aligndistill.config.audit import AuditSettings
from aligndistill.config.data import Source
from aligndistill.config.load import load_config
from aligndistill.config.resolve import resolved
from aligndistill.data.loading import load_judgments
from aligndistill.errors import JudgeError
from aligndistill.reporting.audit_rows import audit_table
from aligndistill.runs.folder import stage_folders
from aligndistill.stages.audit import AuditResult, audit_labelling, read_labelling, recorded


def print_audit(path: Path, labels: Path | None) -> None:
    """Audit a run and show the figures.

    Raises:
        DataError: there is nothing there to audit.
        JudgeError: a limit of `audit.stop` is exceeded.
    """
    result = audit_run(path, labels)
    print_table(audit_table(result.metrics))
    for warning in result.warnings:
        typer.echo(f"warning: {warning}")
    if result.stops:
        raise JudgeError(f"the judge cannot be trusted: {'; '.join(result.stops)}.")


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
        return audit_labelling(recorded(judgments.all().records), AuditSettings(labels=given))
    folders = stage_folders(path)
    settings = resolved(load_config([path / "config.yaml"])).audit_settings
    return audit_labelling(read_labelling(folders), settings.model_copy(update={"labels": given}) if given else settings)
