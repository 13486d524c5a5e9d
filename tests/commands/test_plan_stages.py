"""Why stages would run, and sums of what is left, for a pipeline of stages that do nothing."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from aligndistill.chat.http.budget import Spending
from aligndistill.commands.plan.chats import Estimate
from aligndistill.commands.plan.stages import PlannedStage, planned_stages, stage_lines, total_line
from aligndistill.config.budget import Budget, Price
from aligndistill.config.load import dump_config, load_config
from aligndistill.config.models import EndpointModel
from aligndistill.config.run import RunConfig
from aligndistill.records import Usage
from aligndistill.stages.context import StageContext
from aligndistill.store.artifacts import finish
from aligndistill.store.stage import Stage, StageResult, stage

CONFIG = """\
name: small
prompts: {source: {path: prompts.jsonl}}
start: {model: ./start}
judge: {kind: function, function: "judge:grade"}
students: {dpo: {objective: {kind: dpo, beta: BETA}}}
runtime: {store: store, runs: runs}
"""


def read(context: StageContext, *, seed: int) -> StageResult:
    return StageResult()


def train(context: StageContext, *, beta: float, data: Path, others: Mapping[str, Path] | None = None) -> StageResult:
    return StageResult()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def config(beta: float = 0.1, budget: Budget | None = None) -> RunConfig:
    Path("config.yaml").write_text(CONFIG.replace("BETA", str(beta)))
    found = load_config("config.yaml")
    return found.model_copy(update={"budget": budget or Budget()})


def pipeline(beta: float) -> list[Stage]:
    prompts = stage("prompts", read, seed=0)
    student = stage("student-dpo", train, beta=beta, data=prompts)
    baseline = stage("student-best_of_n", train, beta=0.0, data=prompts)
    return [prompts, student, baseline, stage("report", train, beta=0.0, data=student)]


def done(one: Stage, seconds: float, size: int) -> None:
    folder = one.folder(Path("store"))
    folder.mkdir(parents=True)
    (folder / "rows").write_bytes(b"x" * size)
    finish(folder, stage=one.name, stage_fingerprint=one.fingerprint, counts={}, dropped={}, metrics={}, wall_seconds=seconds)


def ran_before(stages: list[Stage], beta: float) -> None:
    """The folder that a run leaves behind."""
    folder = Path("runs/small")
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(dump_config(config(beta)))
    listed = [{"name": one.name, "folder": str(one.folder(Path("store"))), "inputs": []} for one in stages]
    (folder / "plan.json").write_text(json.dumps({"stages": listed}))
    (folder / "artifacts.json").write_text("{}")


def planned(of: RunConfig, stages: list[Stage], *estimates: tuple[str, Estimate]) -> dict[str, PlannedStage]:
    return {one.name: one for one in planned_stages(of, stages, {}, estimates, list[Spending]())}


def test_reasons_of_a_first_run() -> None:
    stages = pipeline(0.1)
    found = planned(config(), stages)
    assert {name: one.reason for name, one in found.items()} == {
        "prompts": "not run yet",
        "student-dpo": "after prompts",
        "student-best_of_n": "after prompts; baseline, always added",
        "report": "after student-dpo",
    }
    assert {one.seconds for one in found.values()} == {None}


def test_a_changed_setting_is_named() -> None:
    before, now = pipeline(0.1), pipeline(0.5)
    for one in before[:3]:
        done(one, 20.0, 1000)
    ran_before(before, 0.1)
    found = planned(config(0.5), now)
    assert found["student-dpo"].reason == "config changed: students.dpo.objective.beta"
    assert (found["prompts"].state, found["prompts"].reason) == ("finished", "")
    assert (found["student-best_of_n"].state, found["student-best_of_n"].reason) == ("finished", "baseline, always added")
    assert found["report"].reason == "after student-dpo"


def test_changed_data_is_no_changed_setting() -> None:
    before = pipeline(0.1)
    done(before[0], 1.0, 10)
    done(before[1], 1.0, 10)
    ran_before(before, 0.1)
    assert planned(config(), pipeline(0.2))["student-dpo"].reason == "its data or code changed"


def test_time_and_disk_are_those_of_finished_stages_of_a_kind() -> None:
    stages = pipeline(0.1)
    done(stages[0], 1.0, 10)
    done(stages[2], 30.0, 4000)
    found = planned(config(), stages)
    assert (found["prompts"].seconds, found["prompts"].disk_bytes) == (1.0, 10)
    assert (found["student-dpo"].seconds, found["student-dpo"].disk_bytes) == (30.0, 4000)


def test_an_interrupted_stage_is_resumed() -> None:
    stages = pipeline(0.1)
    stages[0].folder(Path("store")).mkdir(parents=True)
    found = planned(config(), stages)
    assert (found["prompts"].state, found["prompts"].reason) == ("started", "not finished; what is done is kept")


def estimate(name: str = "m") -> Estimate:
    server = EndpointModel(kind="endpoint", base_url="http://localhost/v1", name=name, concurrency=10)
    return Estimate(name, server, 100, 1200, 0, Usage(calls=600, prompt_tokens=10**6, completion_tokens=10**6), True, True)


def test_requests_have_their_time_and_price_and_the_total_is_their_sum() -> None:
    budget = Budget(prices={"m": Price(prompt=2.0, completion=5.0)})
    stages = pipeline(0.1)
    found = planned(config(budget=budget), stages, ("student-dpo", estimate()), ("report", estimate()))
    assert (found["student-dpo"].requests, found["student-dpo"].usd, found["student-dpo"].seconds) == (600, 7.0, 120.0)
    assert total_line(list(found.values())) == "total: 4 of 4 stages to do, at least 4.0 min, 1,200 requests, at most 14.00 USD"
    lines = list(stage_lines(list(found.values()), paths=False))
    assert lines[0].split() == ["stage", "state", "time", "requests", "USD", "disk", "why"]
    assert lines[2].split()[:8] == ["student-dpo", "to", "do", "about", "2.0", "min", "600", "7.00"]


def test_without_a_price_there_is_no_sum() -> None:
    found = planned(config(), pipeline(0.1), ("report", estimate()))
    assert found["report"].usd is None
    assert "600 requests, no price" in total_line(list(found.values()))


def test_folders_are_shown_on_demand() -> None:
    found = list(planned(config(), pipeline(0.1)).values())
    assert not any("store/" in line for line in stage_lines(found, paths=False))
    assert [line.split()[-1] for line in list(stage_lines(found, paths=True))[1:5]] == [str(one.folder) for one in found]


def test_nothing_to_do() -> None:
    stages = pipeline(0.1)
    for one in stages:
        done(one, 1.0, 1)
    assert total_line(list(planned(config(), stages).values())) == "total: nothing to do, all 4 stages are finished"


def test_columns_stay_aligned() -> None:
    found: list[Any] = list(planned(config(), pipeline(0.1)).values())
    lines = list(stage_lines(found, paths=False))
    place = lines[0].index("why")
    assert [line[place:] for line in lines[1:5]] == [one.reason for one in found]


def test_a_narrow_terminal_has_the_reasons_but_not_the_disk() -> None:
    found: list[Any] = list(planned(config(), pipeline(0.1), ("report", estimate())).values())
    lines = list(stage_lines(found, paths=False, width=60))
    assert [line for line in lines if len(line) > 60] == []
    assert lines[0].split()[-1] == "why"
    assert any(line.startswith("4 columns hidden (disk, USD, requests, time)") for line in lines)
