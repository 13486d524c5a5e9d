"""A chain of two runs by one command: the second has the first one's students as teacher and start."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tests.e2e.command import ForkServer, ranks
from tests.e2e.small_run import write_config

PORT = 29500 + os.getpid() % 200
TRAINING = {"batch_size": 8, "max_steps": 2, "learning_rate": 1e-3}


def test_a_chain_runs_in_order_and_is_not_run_twice(folder: Path, forked: ForkServer, config: dict[str, Any]) -> None:
    write_config(
        folder / "large.yaml", {**config, "name": "large", "students": {"dpo": {"objective": {"kind": "dpo"}, **TRAINING}}}
    )
    second = {
        **config,
        "name": "small",
        "start": {"run": "runs/large", "student": "best_of_n"},
        "teacher": {"run": "runs/large", "student": "dpo"},
        "students": {"kd": {"objective": {"kind": "distil", "on": "all"}, **TRAINING}},
    }
    write_config(folder / "small.yaml", second)
    ended = forked.run(folder, "check", "small.yaml")
    assert ended.code == 3
    assert "small.yaml:8: start.run: there is no run at 'runs/large'" in " ".join(ended.complaint.split())
    ended = forked.run(folder, "run", "large.yaml", "small.yaml", "--chain")
    assert ended.code == 0, ended.errors
    assert "run 2 of 2: small" in ended.errors
    report = json.loads((folder / "runs/small/report.json").read_text())
    assert report["students"]["kd"]["kl_nats"]["n"] > 0
    assert {one["model"] for one in report["chain"]} == {"runs/large: best_of_n", "runs/large: dpo", "./start"}
    assert "runs/large: dpo" in (folder / "runs/small/report.html").read_text()
    again = forked.run(folder, "run", "large.yaml", "small.yaml", "--chain")
    assert (again.code, again.output.count("Nothing to do")) == (0, 2), again.errors
    (folder / "runs/large").rename(folder / "runs/renamed")  # the model's content counts, not where its run is
    write_config(folder / "small.yaml", json.loads(json.dumps(second).replace("runs/large", "runs/renamed")))
    again = forked.run(folder, "run", "small.yaml")
    assert again.code == 0, again.errors
    assert re.findall(r"^\S+ \S+ (\w+): stage", again.errors, re.MULTILINE) == ["report"]
    assert forked.run(folder, "check", "small.yaml").code == 0


def test_two_processes_run_a_chain_and_train_the_ensemble_of_one(
    folder: Path, forked: ForkServer, config: dict[str, Any], tmp_path: Path
) -> None:
    """The members' heads are those of one process but for rounding, and the second run's start is the first one's student."""
    rewards = {"reward_model": {"ensemble": 3, **TRAINING}}
    trained = {"students": {"dpo": {"objective": {"kind": "dpo"}, **TRAINING}}}
    write_config(folder / "large.yaml", {**config, **rewards, **trained, "name": "large"})
    second = {**config, **trained, "reward_model": None, "name": "small", "start": {"run": "runs/large", "student": "dpo"}}
    write_config(folder / "small.yaml", second)
    alone = tmp_path / "alone"
    shutil.copytree(folder, alone)
    ended = forked.run(folder, "run", "large.yaml", "small.yaml", "--chain", environments=ranks(2, PORT))
    assert ended.code == 0, ended.errors
    found = {name: json.loads((folder / f"runs/{name}/report.json").read_text()) for name in ("large", "small")}
    assert found["large"]["reward_model"]["ensemble"]["members"] == 3
    assert "runs/large: dpo" in {one["model"] for one in found["small"]["chain"]}
    again = forked.run(folder, "run", "large.yaml", "small.yaml", "--chain")
    assert (again.code, again.output.count("Nothing to do")) == (0, 2), again.errors
    ended = forked.run(alone, "stage", "reward_model", "large.yaml")
    assert ended.code == 0, ended.errors
    of_two, of_one = (heads(one) for one in (folder, alone))
    assert of_two.shape[0] == 3
    assert torch.allclose(of_two, of_one, atol=1e-5)
    assert not torch.allclose(of_one[0], of_one[1], atol=1e-3)


def heads(folder: Path) -> torch.Tensor:
    """The members' heads of the one reward model."""
    (found,) = (folder / "runs/store").glob("reward_model-*/model/ensemble.safetensors")
    return load_file(found)["heads_EH"]
