"""What `aligndistill judge` does: look at a judge's verdicts, hand them to other tools, ask by batch file."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from aligndistill.config.audit import Audit
from aligndistill.config.data import Source
from aligndistill.config.judges import judging_author
from aligndistill.config.load import load_config
from aligndistill.data.loading import load_judgments
from aligndistill.runs.folder import _folders
from aligndistill.stages.audit import AuditResult, audit_labelling, read_labelling, recorded


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


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")
            count += 1
    return count
