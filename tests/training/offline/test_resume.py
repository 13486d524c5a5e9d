import json
import signal
from pathlib import Path

import pytest

from aligndistill.training.checkpoints import newest_valid_checkpoint
from tests.e2e.command import ForkServer
from tests.training.killing import result
from tests.training.offline.interrupted import STEPS

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def runs(forked: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All runs, made by one process and its children."""
    folder = tmp_path_factory.mktemp("interrupted")
    forked.run_module("tests.training.offline.interrupted", str(folder))
    return folder


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
