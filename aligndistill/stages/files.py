"""metrics.jsonl beside a trained model: one line per log entry."""

import json
from pathlib import Path

from aligndistill.training.fit import Trained

METRICS = "metrics.jsonl"


def write_log(folder: Path, trained: Trained) -> None:
    """Write the log of a training run."""
    (folder / METRICS).write_text("".join(json.dumps(entry) + "\n" for entry in trained.log))


def read_log(folder: Path) -> list[dict[str, float]]:
    """Read it back."""
    return [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
