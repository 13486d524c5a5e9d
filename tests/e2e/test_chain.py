"""A chain of two runs by one command: the second has the first one's students as teacher and start."""

import json
import re
from pathlib import Path
from typing import Any

from tests.e2e.command import ForkServer
from tests.e2e.small_run import write_config

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
