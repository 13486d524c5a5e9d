import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aligndistill.training.checkpoints import newest_valid_checkpoint
from tests.training.offline.interrupted import STEPS

pytestmark = pytest.mark.process

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All runs, made by one process."""
    folder = tmp_path_factory.mktemp("interrupted")
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    subprocess.run(
        [sys.executable, "-m", "tests.training.offline.interrupted", str(folder)], cwd=REPOSITORY, env=environment, check=True
    )
    return folder


def result(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    found["log"] = [{name: value for name, value in entry.items() if name != "seconds"} for entry in found["log"]]
    return found


@pytest.mark.parametrize(
    ("kind", "interruption"),
    [("full", "in_step_five"), ("full", "before_the_manifest_of_six"), ("full", "at_the_end"), ("lora", "in_step_five")],
)
def test_a_killed_run_ends_where_an_uninterrupted_one_does(runs: Path, kind: str, interruption: str) -> None:
    codes = json.loads((runs / "codes.json").read_text())
    assert codes[f"{kind} uninterrupted"] == [0]
    assert codes[f"{kind} {interruption}"] == [-signal.SIGKILL, 0]
    whole, resumed = result(runs / kind / "uninterrupted"), result(runs / kind / interruption)
    assert resumed["steps"] == whole["steps"] == STEPS
    assert resumed["weights"] == whole["weights"]  # to the bit
    assert resumed["log"] == whole["log"]


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_the_log_has_every_logging_step_and_the_seconds_continue(runs: Path, kind: str) -> None:
    for run in ("uninterrupted", "in_step_five"):
        log = json.loads((runs / kind / run / "result.json").read_text())["log"]
        assert [entry["step"] for entry in log] == [2, 3, 4, 6]  # every third, and where a checkpoint is due
        seconds = [entry["seconds"] for entry in log]
        assert seconds == sorted(seconds)
        assert newest_valid_checkpoint(runs / kind / run) == runs / kind / run / f"checkpoint-{STEPS}"
