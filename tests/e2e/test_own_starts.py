"""Students of several starts in one run, by one command."""

import json
from pathlib import Path
from typing import Any

from tests.e2e.command import ForkServer
from tests.e2e.small_run import SIZES, write_config


def test_students_of_two_starts_learn_from_one_store(folder: Path, forked: ForkServer, config: dict[str, Any]) -> None:
    sft = {"demonstrations": {"path": "teacher_demonstrations.jsonl"}, "learning_rate": 1e-2, "batch_size": 16, "max_steps": 10}
    own = {"from_scratch": {**SIZES, "vocab_size": 400, "hidden_size": 16}, "sft": sft}
    training = {"objective": {"kind": "dpo"}, "batch_size": 8, "max_steps": 2, "learning_rate": 1e-3}
    config["students"] = {"large": training, "small": {**training, "start": own}}
    config["candidates"]["from"] = ["start", "start-small"]
    config["reward_model"] = None
    write_config(folder / "run.yaml", config)
    ended = forked.run(folder, "run", "run.yaml")
    assert ended.code == 0, ended.errors
    assert "start-small" in ended.output
    report = json.loads((folder / "runs/run/report.json").read_text())
    small, large = report["students"]["small"], report["students"]["large"]
    assert report["starts"].keys() == {"start-small"}
    assert report["starts"]["start-small"]["win_rate"]["n"] == small["win_rate"]["n"] == small["win_rate_own"]["n"]
    assert large["win_rate_own"] is None
    # Each is a few steps from its own start, which are far from each other.
    assert 0 < small["kl_nats"]["mean"] < 5
    (made,) = (folder / "runs/store").glob("candidates-*/candidates.jsonl")
    assert {json.loads(line)["author"] for line in made.read_text().splitlines()} == {"start", "start-small"}
    assert "vs own" in (folder / "runs/run/report.html").read_text()
