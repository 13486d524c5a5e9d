import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.training import deepspeed_ppo

REPOSITORY = Path(__file__).parents[2]
CONFIGS = REPOSITORY / "configs" / "deepspeed"


def on_two_processes(module: str, *arguments: str) -> None:
    """By DeepSpeed's own launcher."""
    launcher = Path(sys.executable).parent / "deepspeed"
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "DS_ACCELERATOR": "cpu",
        "PYTHONPATH": str(REPOSITORY),
        "PATH": f"{launcher.parent}{os.pathsep}{os.environ['PATH']}",
    }
    command = [str(launcher), "--num_gpus", "2", "--no_local_rank", "--module", module, *arguments]
    ended = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.fixture(scope="module")
def ppo_alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    deepspeed_ppo.main(folder, None)
    return folder


@pytest.mark.timeout(300)
@pytest.mark.parametrize("stage", ["zero2", "zero3"])
def test_ppo_on_two_processes_learns_what_one_does(ppo_alone: Path, tmp_path: Path, stage: str) -> None:
    on_two_processes(deepspeed_ppo.__name__, str(tmp_path), str(CONFIGS / f"{stage}.json"))
    alone, shared = (json.loads((folder / "result.json").read_text()) for folder in (ppo_alone, tmp_path))
    for name, like in (("separate", "separate"), ("shared", "shared"), ("resumed", "shared")):
        assert (alone[like]["processes"], shared[name]["processes"]) == (1, 2)
        assert len(alone[like]["log"]) == len(shared[name]["log"]) == 2
        for entry, other in zip(alone[like]["log"], shared[name]["log"], strict=True):
            same_figures(entry, other)
        expected, found = (load_file(folder / "model/model.safetensors") for folder in (ppo_alone / like, tmp_path / name))
        assert expected.keys() <= found.keys()  # a tied head may be written too
        for weight, value in expected.items():
            torch.testing.assert_close(found[weight], value, atol=2e-5, rtol=1e-3, msg=f"{name} {weight}")


def same_figures(entry: dict[str, Any], other: dict[str, Any]) -> None:
    """Everything that is logged but clocks and rates."""
    figures = {name for name in entry if not name.endswith("seconds") and isinstance(entry[name], float | int)}
    assert {"score", "kl_k1_nats", "policy_loss", "value_loss", "explained_variance", "grad_norm", "length_tokens"} <= figures
    for name in figures:
        assert other[name] == pytest.approx(entry[name], rel=2e-3, abs=2e-4), name
