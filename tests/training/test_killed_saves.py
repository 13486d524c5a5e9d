import json
from pathlib import Path

import pytest

from aligndistill.training.checkpoints import CHECKPOINT_MANIFEST
from tests.e2e.command import ForkServer

pytestmark = pytest.mark.process


def test_a_save_killed_at_any_write_is_not_resumed_from_until_its_manifest_is_renamed(forked: ForkServer, tmp_path: Path) -> None:
    forked.run_module("tests.training.killed_saves", str(tmp_path))
    saves = json.loads((tmp_path / "saves.json").read_text())
    writes = [one["before"] for one in saves]
    renamed = writes.index(f"os.rename {CHECKPOINT_MANIFEST}.partial")
    assert {"open optimizer.pt", "open scheduler.pt", "open rng_state.pth", "open trainer_state.json"} <= set(writes[:renamed])
    for number, one in enumerate(saves):
        assert (one["resumes_from"] == "checkpoint-2") == (number <= renamed), one
