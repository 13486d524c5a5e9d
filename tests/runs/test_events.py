"""What a run writes while it works: one line a second at most, heartbeats, and a file that survives a kill."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aligndistill.errors import DataError
from aligndistill.processes import progress
from aligndistill.processes.progress import Count, track
from aligndistill.runs import events as module
from aligndistill.runs.events import Events, recorded
from tests.clock import set_clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which a test sets."""
    return set_clock(monkeypatch, module, progress)


def entries(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def count(done: int, per_second: float = 2.0, note: str = "") -> Count:
    return Count("verdicts", done, 100, per_second, note)


def test_counts_are_written_once_a_second(tmp_path: Path, clock: list[float]) -> None:
    events = Events(tmp_path / "events.jsonl")
    with events.stage("verdicts"):
        for tenths in range(1, 51):
            clock[0] = 1000 + tenths / 10
            events.count(count(tenths))
    written = entries(tmp_path / "events.jsonl")
    assert [one["event"] for one in written] == ["start", *["progress"] * 5, "finish"]
    assert [one["n"] for one in written[1:6]] == [10, 20, 30, 40, 50]
    assert written[-1]["n"] == 50, "the last count is not lost"


def test_a_rate_is_told_after_five_seconds_and_with_it_the_time_left(tmp_path: Path, clock: list[float]) -> None:
    events = Events(tmp_path / "events.jsonl", lambda: {"requests": 3, "tokens": 40, "usd": 0.01})
    with events.stage("verdicts"):
        clock[0] = 1004
        events.count(count(20, note="loss 0.5"))
        clock[0] = 1006
        events.count(count(40))
    early, late = entries(tmp_path / "events.jsonl")[1:3]
    assert (early["rate"], early["eta_s"], early["note"]) == (None, None, "loss 0.5")
    assert (late["rate"], late["eta_s"]) == (2.0, 30.0)  # 60 left at 2 a second
    assert late["spent"] == {"requests": 3, "tokens": 40, "usd": 0.01}
    assert (late["t"], late["total"]) == (1006, 100)


def test_a_silent_stage_has_a_heartbeat_every_ten_seconds(tmp_path: Path, clock: list[float]) -> None:
    events = Events(tmp_path / "events.jsonl")
    events.beat()  # no stage is running
    with events.stage("student-dpo"):
        events.count(Count("step", 3, 9, 0.0, ""))
        for second in range(1, 36):
            clock[0] = 1000 + second
            events.beat()
    written = entries(tmp_path / "events.jsonl")
    beats = [one for one in written if one["event"] == "heartbeat"]
    assert [one["t"] for one in beats] == [1010, 1020, 1030]
    assert {(one["n"], one["total"], one["note"]) for one in beats} == {(3, 9, "step")}


def test_a_failure_keeps_its_message_without_keys(tmp_path: Path) -> None:
    events = Events(tmp_path / "events.jsonl")
    with pytest.raises(DataError), events.stage("prompts"):
        raise DataError("data.jsonl row 3 has sk-abcdefghijk")
    assert entries(tmp_path / "events.jsonl")[-1]["note"] == "data.jsonl row 3 has [hidden]"


def test_a_failure_between_stages_is_recorded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "events.jsonl"
    with pytest.raises(DataError), recorded(path, lambda: None):
        raise DataError("the launcher failed")
    with pytest.raises(DataError), recorded(path, lambda: None) as events, events.stage("prompts"):
        raise DataError("no prompts")
    monkeypatch.setenv("ALIGNDISTILL_LAST_ERROR", "somewhere")
    with recorded(path, lambda: None):
        pass
    written = entries(path)
    assert [(one["event"], one["stage"]) for one in written] == [
        *(("begin", None), ("fail", None)),
        *(("begin", None), ("start", "prompts"), ("fail", "prompts")),
        *(("begin", None), ("end", None)),
    ]
    assert written[1]["note"] == "the launcher failed"
    assert [one["note"] is None for one in written if one["event"] == "begin"] == [False, False, True]


def test_bars_in_a_recorded_block_are_counts(tmp_path: Path, clock: list[float]) -> None:
    path = tmp_path / "events.jsonl"
    with recorded(path, lambda: None) as events, events.stage("verdicts"):
        for _ in track(range(3), "verdicts", 3):
            clock[0] += 1
    events = [(one["event"], one["stage"], one["n"]) for one in entries(path)]
    assert events == [
        ("begin", None, None),
        ("start", "verdicts", None),
        *(("progress", "verdicts", n) for n in (1, 2, 3)),
        ("finish", "verdicts", 3),
        ("end", None, None),
    ]


WRITER = """
import sys, time
from pathlib import Path
from aligndistill.processes.progress import Count
from aligndistill.runs.events import recorded
with recorded(Path(sys.argv[1]), lambda: None) as events, events.stage("verdicts"):
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.mark.process
def test_a_killed_run_gives_up_its_lock_and_the_next_closes_the_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"ready\n"
    with path.open("rb") as file:
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    path.write_bytes(path.read_bytes() + b'{"t": 12.5, "stage": "verd')
    with recorded(path, lambda: None):
        pass
    lines = path.read_text().splitlines()
    assert lines[2] == '{"t": 12.5, "stage": "verd'
    assert [json.loads(line)["event"] for line in (*lines[:2], *lines[3:])] == ["begin", "start", "begin", "end"]
