"""GRPO and RLOO under ZeRO, with two processes and by the names of DeepSpeed's configs."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.e2e.command import ForkServer
from tests.e2e.small_run import read_rows, write_config

TRAINING = {"batch_size": 8, "max_steps": 2, "learning_rate": 1e-3, "max_response_tokens": 12}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("zero", ["zero2", "zero3"])
def test_trls_students_train_on_two_processes(folder: Path, config: dict[str, Any], zero: str, forked: ForkServer) -> None:
    reward = {"kind": "function", "function": "counting_judge:grade"}
    config["students"] = {
        kind: {"objective": {"kind": kind, "reward": reward, "samples_per_prompt": 2}, **TRAINING} for kind in ("grpo", "rloo")
    }
    config["runtime"] |= {"launcher": "deepspeed", "processes": 2, "per_device_train_batch_size": 4, "deepspeed": zero}
    write_config(folder / "run.yaml", config)
    ended = forked.run(folder, "run", "run.yaml", "--until", "students")
    assert ended.code == 0, ended.errors
    before = load_file(folder / "start/model.safetensors")
    for kind in ("grpo", "rloo"):
        (student,) = (folder / "runs/store").glob(f"student-{kind}-*")
        after = load_file(student / "model/model.safetensors")
        assert after.keys() >= before.keys()  # ZeRO-2 writes a tied head too
        moved = max(float((after[name].float() - before[name].float()).abs().max()) for name in before)
        assert 1e-4 < moved < 3e-3  # two steps of Adam at 1e-3
        assert all(bool(torch.isfinite(weight).all()) for weight in after.values())
        log = [row for row in read_rows(student / "metrics.jsonl") if "reward" in row]
        assert log
        assert all(row["reward"] == row["reward"] for row in log)
