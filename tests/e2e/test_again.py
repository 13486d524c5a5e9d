"""The same command again, and with a little changed: what is there already is not made again."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.command import ForkServer, command
from tests.e2e.conftest import FinishedRun
from tests.e2e.small_run import read_rows, small_config, write_config, write_rows
from tests.imports import HEAVY, TOLD, imported

NOTHING = "Nothing to do"


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def stages(run: FinishedRun) -> set[str]:
    return {path.name for path in run.store.iterdir() if path.name != "caches"}


def new_stages(run: FinishedRun, before: set[str]) -> set[str]:
    return {name.rpartition("-")[0] for name in stages(run) - before}


def test_a_finished_run_does_nothing(small_run: FinishedRun) -> None:
    before = snapshot(small_run.folder / "runs")
    ended = command(small_run.folder, "run", "small.yaml", environment=TOLD)
    assert (ended.code, NOTHING in ended.output) == (0, True), ended.errors
    assert "typer" in imported(ended)
    assert not imported(ended) & HEAVY
    assert snapshot(small_run.folder / "runs") == before
    assert ended.output.rstrip().endswith("next     aligndistill view runs/small")


def test_a_finished_run_does_nothing_where_the_libraries_are_there_already(small_run: FinishedRun, forked: ForkServer) -> None:
    before = snapshot(small_run.folder / "runs")
    ended = forked.run(small_run.folder, "run", "small.yaml")
    assert (ended.code, NOTHING in ended.output) == (0, True), ended.errors
    assert snapshot(small_run.folder / "runs") == before


@pytest.mark.parametrize(
    "change",
    [
        "runtime.per_device_eval_batch_size=3",
        "runtime.logging_steps=1",
        "runtime.save_steps=7",
        "runtime.gradient_checkpointing=true",
    ],
)
def test_how_it_runs_is_not_what_it_makes(small_run: FinishedRun, forked: ForkServer, change: str) -> None:
    before = snapshot(small_run.store)
    ended = forked.run(small_run.folder, "run", "small.yaml", change, f"runtime.runs={small_run.folder}/elsewhere")
    assert (ended.code, NOTHING in ended.output) == (0, True), ended.errors
    assert snapshot(small_run.store) == before


def test_another_learning_rate_remakes_that_student_and_what_follows(copied_run: FinishedRun, forked: ForkServer) -> None:
    before, contents = stages(copied_run), snapshot(copied_run.store)
    ended = forked.run(copied_run.folder, "run", "small.yaml", "students.dpo.learning_rate=2e-3")
    assert ended.code == 0, ended.errors
    assert new_stages(copied_run, before) == {"student-dpo", "answers-dpo", "evaluation", "report"}
    after = snapshot(copied_run.store)
    assert {name: after[name] for name in contents if not name.startswith("caches")} == {
        name: entry for name, entry in contents.items() if not name.startswith("caches")
    }


def test_another_student_uses_what_the_others_used(copied_run: FinishedRun, forked: ForkServer) -> None:
    before = stages(copied_run)
    student = "{objective: {kind: rrhf}, max_steps: 2, learning_rate: 1e-3}"
    ended = forked.run(copied_run.folder, "run", "small.yaml", f"students.rrhf={student}")
    assert ended.code == 0, ended.errors
    assert new_stages(copied_run, before) == {"student-rrhf", "answers-rrhf", "evaluation", "report"}
    assert "rrhf" in ended.output


def test_changed_data_is_new_data(copied_run: FinishedRun, forked: ForkServer) -> None:
    prompts = copied_run.folder / "prompts.jsonl"
    write_rows(prompts, [*read_rows(prompts), {"prompt": "What is seven plus seven?"}])
    before = stages(copied_run)
    ended = forked.run(copied_run.folder, "run", "small.yaml", "--until", "rankings", "evaluation.truth=null")
    assert ended.code == 0, ended.errors
    assert new_stages(copied_run, before) == {"prompts", "candidates", "verdicts", "audit", "rankings"}
    (again,) = set(copied_run.store.glob("prompts-*")) - {copied_run.store / name for name in before}
    assert "What is seven plus seven?" in (again / "prompts.jsonl").read_text()


def test_a_touched_but_equal_file_is_the_same_data(small_run: FinishedRun, forked: ForkServer) -> None:
    prompts = small_run.folder / "prompts.jsonl"
    prompts.write_bytes(prompts.read_bytes())
    assert NOTHING in forked.run(small_run.folder, "run", "small.yaml").output


def test_a_damaged_artifact_is_moved_away_and_rebuilt(copied_run: FinishedRun, forked: ForkServer) -> None:
    rankings = copied_run.made("rankings")
    whole = (rankings / "rankings.jsonl").read_bytes()
    (rankings / "rankings.jsonl").write_bytes(whole[:-100])
    ended = forked.run(copied_run.folder, "run", "small.yaml")
    assert ended.code == 0, ended.errors
    assert "damaged" in ended.errors
    assert (rankings / "rankings.jsonl").read_bytes() == whole
    assert rankings.with_name(f"{rankings.name}.damaged-1").is_dir()


def test_two_runs_share_a_store(copied_run: FinishedRun, forked: ForkServer) -> None:
    other: dict[str, Any] = {**small_config(), "name": "other"}
    write_config(copied_run.folder / "other.yaml", other)
    before = stages(copied_run)
    ended = forked.run(copied_run.folder, "run", "other.yaml")
    assert ended.code == 0, ended.errors
    assert new_stages(copied_run, before) == {"report"}
    assert (copied_run.folder / "runs/other/report.html").is_file()
    ended = forked.run(copied_run.folder, "compare", "runs/small", "runs/other")
    assert ended.code == 0, ended.errors
    assert "other" in ended.output


def test_until_stops_there_and_a_stage_makes_what_it_needs(copied_run: FinishedRun, forked: ForkServer) -> None:
    before = stages(copied_run)
    ended = forked.run(copied_run.folder, "run", "small.yaml", "seed=9", "--until", "prompts")
    assert (ended.code, NOTHING in ended.output) == (0, True), "reading prompts draws nothing"
    ended = forked.run(copied_run.folder, "run", "small.yaml", "prompts.held_out=0.4", "--until", "prompts")
    assert ended.code == 0, ended.errors
    assert new_stages(copied_run, before) == {"prompts"}
    assert "Report" not in ended.output
    ended = forked.run(copied_run.folder, "run", "small.yaml", "--until", "ranking")
    assert ended.code == 2
    assert "no stage 'ranking'" in ended.complaint
    assert "rankings" in ended.complaint
    ended = forked.run(copied_run.folder, "stage", "rankings", "small.yaml")
    assert (ended.code, NOTHING in ended.output) == (0, True)


def test_a_finished_run_for_a_program(small_run: FinishedRun, forked: ForkServer) -> None:
    ended = forked.run(small_run.folder, "run", "small.yaml", "--json")
    assert ended.code == 0, ended.errors
    values = json.loads(ended.output)
    assert (values["command"], values["complete"], values["made"]) == ("run", True, [])
    assert values["report"] == json.loads((small_run.folder / "runs/small/report.json").read_text())
    assert set(values["leading"]) <= {"dpo", "pro", "best_of_n"}


def test_plan_says_what_is_done(copied_run: FinishedRun, forked: ForkServer) -> None:
    ended = forked.run(copied_run.folder, "plan", "small.yaml", "students.dpo.learning_rate=2e-3")
    assert ended.code == 0, ended.errors
    rows = [re.split(r"  +", line) for line in ended.output.partition("\n\n")[0].splitlines()]
    state = {row[0]: row[1] for row in rows}
    assert state["student-pro"] == "finished"
    assert state["student-dpo"] == state["evaluation"] == "to do"
