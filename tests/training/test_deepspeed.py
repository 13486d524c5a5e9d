import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training import deepspeed_dpo

REPOSITORY = Path(__file__).parents[2]
CONFIG = REPOSITORY / "configs" / "deepspeed" / "zero2.json"


@pytest.mark.timeout(300)
def test_two_processes_under_zero_2_learn_what_one_does(tmp_path: Path) -> None:
    launcher = Path(sys.executable).parent / "deepspeed"
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "DS_ACCELERATOR": "cpu",
        "PYTHONPATH": str(REPOSITORY),
        "PATH": f"{launcher.parent}{os.pathsep}{os.environ['PATH']}",
    }
    one, two = tmp_path / "one", tmp_path / "two"
    command = [str(launcher), "--num_gpus", "2", "--no_local_rank", "--module", deepspeed_dpo.__name__, str(two), str(CONFIG)]
    ended = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    deepspeed_dpo.main(one, None)
    alone, shared = (json.loads((folder / "result.json").read_text()) for folder in (one, two))
    assert (alone["processes"], shared["processes"]) == (1, 2)
    assert len(alone["log"]) == len(shared["log"]) == 3
    for entry, other in zip(alone["log"], shared["log"], strict=True):
        assert other["loss"] == pytest.approx(entry["loss"], rel=1e-4)
        assert other["grad_norm"] == pytest.approx(entry["grad_norm"], rel=1e-3)
        assert other["rewards/margins"] == pytest.approx(entry["rewards/margins"], rel=1e-3, abs=1e-5)
