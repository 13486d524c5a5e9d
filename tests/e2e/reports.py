"""What two runs are compared by: their reports, without what differs between equal runs (seconds, absolute paths), and weights."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

from tests.e2e.small_run import read_rows

VARYING = {"train_seconds", "about", "made_of"}
"""Keys whose values have times in them."""


def comparable_report(folder: Path, run: str = "small") -> Any:
    """Numbers compare equal to five digits: what a batch held besides an answer changes its sums in the last bits."""
    return _comparable(json.loads((folder / "runs" / run / "report.json").read_text()), folder)


def student_weights(folder: Path, student: str) -> dict[str, Tensor]:
    (found,) = (folder / "runs/store").glob(f"student-{student}-[0-9a-f]*/model/model.safetensors")
    return load_file(found)


def written_rows(folder: Path, stage: str, name: str) -> tuple[bytes, list[dict[str, Any]]]:
    """A stage's rows as they are, and the lines that say how models wrote them, without times and ports."""
    (made,) = (folder / "runs/store").glob(f"{stage}-[0-9a-f]*")
    return (made / name).read_bytes(), [{**line, "time": None, "server": None} for line in read_rows(made / "generated.jsonl")]


def _comparable(value: Any, folder: Path) -> Any:
    if isinstance(value, dict):
        return {key: _comparable(item, folder) for key, item in value.items() if key not in VARYING}
    if isinstance(value, list):
        return [_comparable(item, folder) for item in value]
    if isinstance(value, str):
        return value.replace(str(folder), "")
    return pytest.approx(value, rel=1e-5, abs=1e-6) if isinstance(value, float) else value
