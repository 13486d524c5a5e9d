"""What two runs are compared by: their reports, without what differs between equal runs (seconds, absolute paths), and weights."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor


def comparable_report(folder: Path, run: str = "small") -> Any:
    """Numbers compare equal to five digits: what a batch held besides an answer changes its sums in the last bits."""
    return _comparable(json.loads((folder / "runs" / run / "report.json").read_text()), folder)


def student_weights(folder: Path, student: str) -> dict[str, Tensor]:
    (found,) = (folder / "runs/store").glob(f"student-{student}-[0-9a-f]*/model/model.safetensors")
    return load_file(found)


def _comparable(value: Any, folder: Path) -> Any:
    if isinstance(value, dict):
        return {key: _comparable(item, folder) for key, item in value.items() if key != "train_seconds"}
    if isinstance(value, list):
        return [_comparable(item, folder) for item in value]
    if isinstance(value, str):
        return value.replace(str(folder), "")
    return pytest.approx(value, rel=1e-5, abs=1e-6) if isinstance(value, float) else value
