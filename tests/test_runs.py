"""What a run gathers in its folder, and what it does about damage, with stages that write a word."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from aligndistill import runs
from aligndistill.config import RunConfig
from aligndistill.pipeline import Pipeline
from aligndistill.stages.stage import Made, Stage, Work
from aligndistill.stages.training_log import METRICS

MADE: list[str] = []


def make(work: Work, text: str) -> Made:
    MADE.append(work.folder.name.rpartition("-")[0])
    given = "".join((work.inputs[name] / "text").read_text() for name in sorted(work.inputs))
    (work.folder / "text").write_text(given + text)
    if work.folder.name.startswith("student-"):
        (work.folder / METRICS).write_text(json.dumps({"step": 1, "loss": 0.5}) + "\n")
    for name in ("report.html", "report.json"):
        (work.folder / name).write_text("{}")
    return Made()


def stage(name: str, inputs: Mapping[str, Stage] | None = None) -> Stage:
    return Stage(name, make, (f"<{name}>",), inputs or {}, seed=7)


PROMPTS = stage("prompts")
DPO, PRO = stage("student-dpo", {"prompts": PROMPTS}), stage("student-pro", {"prompts": PROMPTS})
REPORT = stage("report", {"dpo": DPO, "pro": PRO})


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    MADE.clear()
    monkeypatch.setattr(runs, "pipeline", lambda _: Pipeline((PROMPTS, DPO, PRO, REPORT)))
    values: dict[str, Any] = {
        "name": "run",
        "rankings": {"source": {"path": "pairs.jsonl"}},
        "start": {"model": "./start"},
        "students": {"dpo": {"objective": {"kind": "dpo"}}},
        "runtime": {"store": tmp_path / "store", "runs": tmp_path / "runs"},
    }
    return RunConfig.model_validate(values)


def listed(config: RunConfig) -> tuple[list[str], list[str]]:
    """The stages in artifacts.json and those with curves in metrics.jsonl."""
    folder = config.runtime.runs / config.name
    artifacts = json.loads((folder / "artifacts.json").read_text())
    curves = [json.loads(line)["stage"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return list(artifacts), curves


def test_a_part_of_a_run_keeps_what_the_whole_of_it_has_made(config: RunConfig) -> None:
    runs.run(config, "student-pro")
    assert listed(config) == (["prompts", "student-pro"], ["student-pro"])
    runs.run(config, "student-dpo")
    assert listed(config) == (["prompts", "student-dpo", "student-pro"], ["student-dpo", "student-pro"])
    runs.run(config)
    whole = listed(config)
    assert whole == (["prompts", "student-dpo", "student-pro", "report"], ["student-dpo", "student-pro"])
    runs.run(config, "student-dpo")
    assert listed(config) == whole
    assert MADE == ["prompts", "student-pro", "student-dpo", "report"]


def test_what_is_not_finished_any_more_is_not_listed(config: RunConfig) -> None:
    runs.run(config)
    (DPO.folder(config.runtime.store) / "text").unlink()
    runs.run(config, "student-pro")
    assert listed(config) == (["prompts", "student-pro", "report"], ["student-pro"])
