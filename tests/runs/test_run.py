"""What a run gathers in its folder, and what it does about damage, with stages that write a word."""

import json
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from aligndistill.config.run import RunConfig
from aligndistill.errors import DataError
from aligndistill.pipeline import pipeline
from aligndistill.runs import run as runs
from aligndistill.stages.context import StageContext
from aligndistill.stages.files import METRICS
from aligndistill.store import artifacts
from aligndistill.store.stage import Pipeline, Stage, StageResult
from aligndistill.store.stage import stage as new_stage

MADE: list[str] = []


def make(context: StageContext, *, text: str, inputs: Mapping[str, Path]) -> StageResult:
    MADE.append(context.name)
    given = "".join((inputs[name] / "text").read_text() for name in sorted(inputs))
    (context.folder / "text").write_text(given + text)
    if context.name.startswith("student-"):
        (context.folder / METRICS).write_text(json.dumps({"step": 1, "loss": 0.5}) + "\n")
    (context.folder / "report.html").write_text("")
    (context.folder / "report.json").write_text('{"run": "run", "seed": 0}')
    return StageResult()


def stage(name: str, inputs: Mapping[str, Stage] | None = None) -> Stage:
    return new_stage(name, make, text=f"<{name}>", inputs=inputs or {})


def look(context: StageContext, *, run_folder: Path, inputs: Mapping[str, Path]) -> StageResult:
    return StageResult(metrics={"warnings": [f"listed: {', '.join(json.loads((run_folder / 'artifacts.json').read_text()))}"]})


PROMPTS = stage("prompts")
DPO, PRO = stage("student-dpo", {"prompts": PROMPTS}), stage("student-pro", {"prompts": PROMPTS})
REPORT = stage("report", {"dpo": DPO, "pro": PRO})


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    MADE.clear()
    artifacts._verified.clear()  # as in a new process
    monkeypatch.setattr(runs, "pipeline", lambda _: Pipeline(REPORT))
    values: dict[str, Any] = {
        "name": "run",
        "rankings": {"source": {"path": "pairs.jsonl"}},
        "start": {"model": "./start"},
        "students": {"dpo": {"objective": {"kind": "dpo"}}},
        "runtime": {"store": tmp_path / "store", "runs": tmp_path / "runs"},
    }
    return RunConfig.model_validate(values)


def flip(folder: Path) -> None:
    """Damage that leaves the size as it was."""
    content = (folder / "text").read_bytes()
    (folder / "text").write_bytes(bytes([content[0] ^ 1]) + content[1:])


def forget(stage: Stage, config: RunConfig) -> None:
    shutil.rmtree(stage.folder(config.runtime.store))
    MADE.clear()


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


@pytest.mark.parametrize("deterministic", [True, False])
def test_deterministic_kernels_are_chosen_before_anything_is_made(
    deterministic: bool, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[list[str]] = []
    monkeypatch.setattr(runs, "use_deterministic_kernels", lambda: chosen.append(list(MADE)))
    runtime = config.runtime.model_copy(update={"deterministic": deterministic})
    runs.run(config.model_copy(update={"runtime": runtime}))
    assert chosen == [[]] * deterministic


def test_a_damaged_input_is_found_by_its_content_and_made_again(config: RunConfig, capsys: pytest.CaptureFixture[str]) -> None:
    runs.run(config)
    prompts = PROMPTS.folder(config.runtime.store)
    whole = (DPO.folder(config.runtime.store) / "text").read_text()
    forget(DPO, config)
    flip(prompts)
    assert runs.run(config).made == ("prompts", "student-dpo")
    assert (DPO.folder(config.runtime.store) / "text").read_text() == whole
    assert MADE == ["prompts", "student-dpo"]
    assert (prompts.with_name(prompts.name + ".damaged-1") / "text").is_file()
    printed = "".join(capsys.readouterr().err.split())  # however wide the terminal is
    assert f"{prompts}isdamaged(text);movedto{prompts.name}.damaged-1andrebuilt" in printed


def test_inputs_of_what_was_found_damaged_are_verified_too(config: RunConfig) -> None:
    runs.run(config)
    forget(REPORT, config)
    flip(PRO.folder(config.runtime.store))
    flip(PROMPTS.folder(config.runtime.store))
    runs.run(config)
    assert MADE == ["prompts", "student-pro", "report"]


def test_an_input_is_verified_once_and_only_where_something_reads_it(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    runs.run(config)
    hashed: list[Path] = []
    really = artifacts.file_hash
    monkeypatch.setattr(artifacts, "file_hash", lambda path: hashed.append(path) or really(path))
    runs.run(config)
    assert hashed == []
    forget(DPO, config)
    forget(PRO, config)
    runs.run(config)
    text = PROMPTS.folder(config.runtime.store) / "text"
    assert hashed.count(text) == 1
    assert MADE == ["student-dpo", "student-pro"]


def test_a_stage_is_listed_and_its_warnings_are_said_before_the_next_begins(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = config.runtime.runs / "run"
    first = new_stage("first", look, run_folder=folder, inputs={"prompts": PROMPTS})
    second = new_stage("second", look, run_folder=folder, inputs={"first": first})
    monkeypatch.setattr(runs, "pipeline", lambda _: Pipeline(second))
    runs.run(config, "second")
    said = [line.split(maxsplit=2)[2] for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert said == ["warning: listed: prompts", "warning: listed: prompts, first"]


def test_the_other_processes_wait_until_the_first_has_verified(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    runs.run(config)
    forget(DPO, config)
    order: list[str] = []
    monkeypatch.setattr(runs, "world_size", lambda: 2)
    monkeypatch.setattr(runs, "monitored", lambda _: nullcontext())
    monkeypatch.setattr(runs, "move_damaged_aside", lambda *_: order.append("verified"))
    monkeypatch.setattr(runs, "wait_for_others", lambda words, ranks: order.append(f"waited for {list(ranks)}"))
    runs.run(config, "prompts")
    assert order == ["verified", "waited for [0]"]
    monkeypatch.setattr(runs, "is_main_process", lambda: False)
    runs.run(config, "prompts")
    assert order[2:] == ["waited for [0]"]


def test_answers_are_all_that_is_trained_and_written_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("prompts.jsonl").write_text('{"prompt": "one"}\n')
    values: dict[str, Any] = {
        "name": "run",
        "prompts": {"source": {"path": "prompts.jsonl"}},
        "start": {"model": "./start"},
        "teacher": {"kind": "endpoint", "base_url": "http://localhost:8000/v1", "name": "teacher"},
        "judge": {"kind": "pairwise", "model": "teacher"},
        "reward_model": {},
        "students": {"dpo": {"objective": {"kind": "dpo"}}},
        "evaluation": {"against_teacher": True},
    }
    whole = pipeline(RunConfig.model_validate(values))
    every = {stage.name for stage in whole.stages}
    assert every - {stage.name for stage in runs.stages_until(whole, "answers")} == {"answers-teacher", "evaluation", "report"}
    trained = {stage.name for stage in runs.stages_until(whole, "students")}
    assert every - trained == {"answers-teacher", "evaluation", "report", "reward_model"} | {
        f"answers-{name}" for name in ("start", "best_of_n", "dpo")
    }


@pytest.mark.parametrize("until", [None, "students", "answers", "evaluation"])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"evaluation": {"fidelity": True}},
        {"evaluation": {"quantized": "int8"}},
        {"rounds": {"count": 2, "promotes": "dpo"}, "reward_model": {}},
    ],
)
def test_the_launcher_makes_every_stage_that_processes_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any], until: str | None
) -> None:
    """Also those that the last one does not need."""
    monkeypatch.chdir(tmp_path)
    Path("prompts.jsonl").write_text('{"prompt": "one"}\n')
    launched: list[str] = []
    monkeypatch.setattr(runs, "launch", lambda config, name: launched.append(name))
    objective: dict[str, Any] = {"objective": {"kind": "dpo"}}
    values: dict[str, Any] = {
        "name": "run",
        "prompts": {"source": {"path": "prompts.jsonl"}},
        "start": {"model": "./start"},
        "teacher": {"model": "./teacher"},
        "judge": {"kind": "pairwise", "model": "teacher"},
        "students": {"dpo": objective, "simpo": {"objective": {"kind": "simpo"}}},
        "runtime": {"launcher": "deepspeed"},
        **more,
    }
    config = RunConfig.model_validate(values)
    whole = pipeline(config)
    stages = runs.stages_until(whole, until)
    assert runs._launched(config, stages, until) == []  # nothing was made
    (name,) = launched
    made = set(runs.stages_until(whole, name))
    assert {stage.name for stage in stages if stage.together and stage not in made} == set()
    assert made <= set(stages)


def test_the_default_rates_of_adapters_are_said_once_before_anything_is_made(
    config: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    values = config.model_dump(mode="json", by_alias=True, exclude_unset=True)
    adapted = RunConfig.model_validate({**values, "start": {"model": "./start", "lora": {"r": 4}}})
    runs.run(adapted)
    said = [line[len("2026-11-24 17:02:11 ") :] for line in capsys.readouterr().err.splitlines()]
    assert said[0] == "learning_rate: 5e-06 for students.dpo (higher by default, because lora trains adapters)"
    assert next(line for line in said if "stage" in line).startswith("prompts: stage 1/")
    runs.run(adapted)
    assert "learning_rate" not in capsys.readouterr().err


def events(config: RunConfig) -> list[tuple[str, str | None]]:
    lines = (config.runtime.runs / config.name / "events.jsonl").read_text().splitlines()
    return [(entry["event"], entry["stage"]) for entry in map(json.loads, lines)]


def test_the_runs_folder_says_what_is_planned_before_the_first_stage_and_what_happened(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = config.runtime.runs / config.name

    def fails(stage: Stage, *_: Any) -> None:
        plan = json.loads((folder / "plan.json").read_text())
        assert [one["name"] for one in plan["stages"]] == ["prompts", "student-dpo", "student-pro", "report"]
        assert plan["stages"][1]["inputs"] == ["prompts"]
        assert plan["stages"][1]["folder"] == str(DPO.folder(config.runtime.store))
        assert plan["totals"] == {"stages": 4}
        assert (folder / "config.yaml").is_file()
        raise DataError(f"{stage.name} is damaged")

    with monkeypatch.context() as patch:
        patch.setattr(runs, "run_stage", fails)
        with pytest.raises(DataError):
            runs.run(config)
    assert events(config) == [("begin", None), ("start", "prompts"), ("fail", "prompts")]
    runs.run(config)  # a resumed run appends
    stages = ("prompts", "student-dpo", "student-pro", "report")
    resumed = [(event, name) for name in stages for event in ("start", "finish")]
    assert events(config)[3:] == [("begin", None), *resumed, ("end", None)]
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    runs.run(config)  # nothing to do
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_other_processes_of_a_run_write_no_events(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    runs.run(config)
    written = events(config)
    monkeypatch.setattr(runs, "is_main_process", lambda: False)
    monkeypatch.setattr(runs, "_missing", lambda *_: list(Pipeline(REPORT).stages))
    runs.run(config)
    assert events(config) == written
