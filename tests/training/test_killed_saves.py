import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aligndistill.training.checkpoints import CHECKPOINT_MANIFEST

pytestmark = pytest.mark.process

REPOSITORY = Path(__file__).parents[2]


def test_a_save_killed_at_any_write_is_not_resumed_from_until_its_manifest_is_renamed(tmp_path: Path) -> None:
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "tests.training.killed_saves", str(tmp_path)]
    subprocess.run(command, cwd=REPOSITORY, env=environment, check=True)
    saves = json.loads((tmp_path / "saves.json").read_text())
    writes = [one["before"] for one in saves]
    renamed = writes.index(f"os.rename {CHECKPOINT_MANIFEST}.partial")
    assert {"open optimizer.pt", "open scheduler.pt", "open rng_state.pth", "open trainer_state.json"} <= set(writes[:renamed])
    for number, one in enumerate(saves):
        assert (one["resumes_from"] == "checkpoint-2") == (number <= renamed), one
