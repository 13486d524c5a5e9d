"""Several seeds on one store of data, by one command."""

import json
from pathlib import Path
from typing import Any

from aligndistill import open_run
from tests.e2e.command import ForkServer
from tests.e2e.small_run import write_config


def test_seeds_are_judged_once_and_summed_up(folder: Path, forked: ForkServer, config: dict[str, Any], monkeypatch: Any) -> None:
    config["students"] = {"dpo": {"objective": {"kind": "dpo"}, "batch_size": 8, "max_steps": 2, "learning_rate": 1e-2}}
    config |= {"seeds": [5, 6], "evaluation": {"samples_per_prompt": 2}}
    write_config(folder / "run.yaml", config)
    ended = forked.run(folder, "run", "run.yaml")
    assert ended.code == 0, ended.errors
    assert len(list((folder / "runs/store").glob("verdicts-*"))) == 1
    report = json.loads((folder / "runs/run/report.json").read_text())
    assert set(report["students"]) == {f"{name}-s{seed}" for name in ("best_of_n", "dpo") for seed in (5, 6)}
    rates = [report["students"][f"dpo-s{seed}"]["win_rate"]["mean"] for seed in (5, 6)]
    over = report["over_seeds"]["dpo"]["win_rate"]
    assert (over["mean"], over["low"], over["high"], over["n"]) == (sum(rates) / 2, min(rates), max(rates), 2)
    lead = report["leading"]
    assert {lead["leader"], *lead["differences"]} == {"dpo", "best_of_n"}
    assert lead["value"]["n"] == report["students"]["dpo-s5"]["win_rate"]["n"]
    assert "over 2 seeds" in ended.output
    page = (folder / "runs/run/report.html").read_text()
    assert "Over seeds" in page
    assert "Leading student of 2" in page
    monkeypatch.chdir(folder)
    assert set(open_run("runs/run").students) == set(report["students"])
