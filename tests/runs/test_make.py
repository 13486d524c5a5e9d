import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from aligndistill.config.run import Runtime
from aligndistill.errors import DataError
from aligndistill.runs.make import run_stage
from aligndistill.stages.context import StageContext, require_records
from aligndistill.store.artifacts import locked, read_manifest
from aligndistill.store.stage import Stage, StageResult
from aligndistill.store.stage import stage as new_stage

MADE: list[str] = []


@pytest.fixture(autouse=True)
def nothing_made() -> None:
    MADE.clear()


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    return Runtime(store=tmp_path / "store")


def make(context: StageContext, *, text: str, inputs: Mapping[str, Path], seed: int = 7) -> StageResult:
    MADE.append(text)
    given = "".join((inputs[name] / "text").read_text() for name in sorted(inputs))
    (context.scratch / "partial").write_text("x")
    (context.folder / "text").write_text(given + text)
    return StageResult(counts={"letters": len(text)}, metrics={"seed": seed})


def make_half(context: StageContext, *, text: str, inputs: Mapping[str, Path]) -> StageResult:
    """Fails the first time, and resumes the second."""
    half = context.scratch / "half"
    if not half.exists():
        half.write_text(text)
        raise DataError("half way")
    (context.folder / "text").write_text(half.read_text() + text)
    return StageResult()


def stage(name: str, text: str, inputs: Mapping[str, Stage] | None = None, **more: Any) -> Stage:
    return new_stage(name, more.pop("make", make), text=text, inputs=inputs or {}, **more)


def test_a_stage_reads_its_inputs_and_is_made_once(runtime: Runtime) -> None:
    first = stage("first", "a")
    second = stage("second", "b", {"before": first})
    for _ in range(2):
        for each in (first, second):
            manifest = run_stage(each, runtime)
    assert MADE == ["a", "b"]
    assert (second.folder(runtime.store) / "text").read_text() == "ab"
    assert (manifest.stage, manifest.fingerprint) == ("second", second.fingerprint)
    assert (manifest.counts, manifest.metrics) == ({"letters": 1}, {"seed": 7})
    assert manifest.files.keys() == {"text"}


def test_a_stage_depends_on_all_that_comes_before(runtime: Runtime) -> None:
    def third(text: str, version: int = 1) -> Stage:
        return stage("third", "c", {"x": stage("second", "b", {"y": stage("first", text, version=version)})})

    assert third("a").fingerprint == third("a").fingerprint
    assert third("a").fingerprint != third("A").fingerprint
    assert third("a").fingerprint != third("a", version=2).fingerprint
    assert third("a").fingerprint != stage("third", "c", third("a").given["inputs"], seed=8).fingerprint


def test_a_stage_resumes_from_what_a_failure_left(runtime: Runtime) -> None:
    half = stage("half", "a", make=make_half)
    with pytest.raises(DataError, match="half way"):
        run_stage(half, runtime)
    assert read_manifest(half.folder(runtime.store)) is None
    run_stage(half, runtime)
    assert (half.folder(runtime.store) / "text").read_text() == "aa"


def test_damaged_work_is_moved_away_and_rebuilt(runtime: Runtime, capsys: pytest.CaptureFixture[str]) -> None:
    first = stage("first", "abc")
    run_stage(first, runtime)
    folder = first.folder(runtime.store)
    (folder / "text").write_text("ab")
    run_stage(first, runtime)
    assert (folder / "text").read_text() == "abc"
    assert (folder.with_name(folder.name + ".damaged-1") / "text").read_text() == "ab"
    assert MADE == ["abc", "abc"]


def test_two_processes_do_not_make_the_same(runtime: Runtime) -> None:
    first = stage("first", "a")
    with locked(first.folder(runtime.store)), pytest.raises(DataError, match=f"pid {os.getpid()}"):
        run_stage(first, runtime)
    assert MADE == []


def test_the_other_processes_of_a_launch_wait_for_the_first(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 1 of 2 makes nothing of a stage that is the first process's alone."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    first = stage("first", "a")
    waited: list[Any] = []
    waiting = threading.Thread(target=lambda: waited.append(run_stage(first, runtime)))
    waiting.start()
    time.sleep(0.2)
    assert (waiting.is_alive(), MADE) == (True, [])
    monkeypatch.setenv("RANK", "0")
    made = run_stage(first, runtime)
    waiting.join(10)
    assert waited == [made]
    assert MADE == ["a"]


def test_nothing_left_says_what_was_dropped() -> None:
    require_records(1, "candidates", {"empty": 9})
    with pytest.raises(DataError, match=r"no candidates are left\. Dropped: 9 empty, 2 duplicate"):
        require_records(0, "candidates", {"empty": 9, "prompt too long": 0, "duplicate": 2})
    with pytest.raises(DataError, match="Dropped: nothing"):
        require_records(0, "candidates", {})
