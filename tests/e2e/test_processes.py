"""The pipeline on two processes: the same figures as on one; and whichever way one of them ends, the run ends with the cause."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.command import ENVIRONMENT, REPOSITORY, Ended, command
from tests.e2e.small_run import small_config, write_config, write_data

PORT = 29700 + os.getpid() % 200


def launched(
    folder: Path, *arguments: str, port: int = PORT, meanwhile: Callable[[subprocess.Popen[bytes]], None] | None = None
) -> Ended:
    """`torchrun -m aligndistill ARGUMENTS` with two processes."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port)]
    with (folder / "output").open("wb") as output, (folder / "errors").open("wb") as errors:
        process = subprocess.Popen(
            [*torchrun, "-m", "aligndistill", *arguments],
            cwd=folder,
            env={**os.environ, **ENVIRONMENT, "DS_ACCELERATOR": "cpu"},
            stdout=output,
            stderr=errors,
        )
        if meanwhile is not None:
            meanwhile(process)
        code = process.wait(timeout=280)
    return Ended(code, (folder / "output").read_text(), (folder / "errors").read_text())


def presences(folder: Path) -> dict[int, dict[str, Any]]:
    """What the two processes say of themselves."""
    found = {}
    for file in (folder / "runs/store/processes").glob("*/[01].json"):
        found[int(file.stem)] = json.loads(file.read_text())
    return found


def wait_until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 200
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def to_the_second_process(folder: Path, stage: str, number: signal.Signals) -> Callable[[subprocess.Popen[bytes]], None]:
    """Send it a signal when a stage is begun."""

    def send(process: subprocess.Popen[bytes]) -> None:
        wait_until(lambda: any(words.startswith(stage) for words in presences(folder).get(0, {}).get("said", [])))
        os.kill(presences(folder)[1]["pid"], number)

    return send


@pytest.fixture
def two(tmp_path: Path) -> Path:
    write_data(tmp_path)
    write_config(tmp_path / "small.yaml", small_config())
    return tmp_path


def zero(stage: int) -> str:
    return f"runtime.deepspeed={REPOSITORY}/configs/deepspeed/zero{stage}.json"


@pytest.mark.timeout(300)
def test_torchrun_under_zero_2_comes_to_the_report(two: Path) -> None:
    ended = launched(two, "run", "small.yaml", zero(2))
    assert ended.code == 0, ended.errors
    assert_same_samples(two)
    assert (two / "runs/small/report.json").is_file()
    assert "best student" in ended.output
    said = presences(two)
    assert all(one["left"] for one in said.values())
    assert any("writes" in words for words in said[1]["said"])
    assert any("verdicts" in words for words in said[1]["said"])


@pytest.mark.timeout(300)
def test_the_run_starts_deepspeeds_launcher_itself_under_zero_3(two: Path) -> None:
    launcher = ("runtime.launcher=deepspeed", "runtime.processes=2", zero(3))
    ended = command(two, "run", "small.yaml", "--until", "student-dpo", *launcher, environment={"DS_ACCELERATOR": "cpu"})
    assert ended.code == 0, ended.errors
    assert_same_samples(two)
    assert presences(two).keys() == {0, 1}
    wrong = command(
        two, "run", "small.yaml", "sft.demonstrations.path=/none.jsonl", *launcher, environment={"DS_ACCELERATOR": "cpu"}
    )
    assert wrong.code == 3
    assert "/none.jsonl" in wrong.errors.strip().splitlines()[-1]  # the cause stands last


def assert_same_samples(folder: Path) -> None:
    """One process writes, from the same start, what the two wrote. Their start is not one process's: rounding grew in 30 steps."""
    (candidates,) = (folder / "runs/store").glob("candidates-*")
    shared = (candidates / "candidates.jsonl").read_text()
    candidates.rename(folder / "of-two-processes")
    alone = command(folder, "run", "small.yaml", "--until", "candidates")
    assert alone.code == 0, alone.errors
    assert (candidates / "candidates.jsonl").read_text() == shared


@pytest.mark.timeout(300)
@pytest.mark.parametrize("stage", ["student-dpo"])
def test_a_killed_process_ends_the_run_with_its_name(two: Path, stage: str) -> None:
    ended = launched(
        two, "run", "small.yaml", "students.dpo.max_steps=80", meanwhile=to_the_second_process(two, stage, signal.SIGKILL)
    )
    assert ended.code != 0
    pid = presences(two)[1]["pid"]
    assert f"error: process 1 (pid {pid}" in ended.errors
    assert "died without a word" in ended.errors
    sealed = list((two / "runs/store").glob("student-dpo-*/scratch/checkpoint-*/aligndistill_checkpoint.json"))
    again = launched(two, "run", "small.yaml", "students.dpo.max_steps=80", "--until", stage, port=PORT + 1)
    assert again.code == 0, again.errors
    assert not sealed or re.search(r"goes on from checkpoint-\d+", again.errors)


@pytest.mark.timeout(300)
def test_a_frozen_process_ends_the_run(two: Path) -> None:
    arguments = ("run", "small.yaml", "runtime.silence_seconds=4", "--until", "start")
    frozen = to_the_second_process(two, "start", signal.SIGSTOP)

    def freeze_and_thaw(process: subprocess.Popen[bytes]) -> None:
        frozen(process)
        wait_until(lambda: "has not been heard of" in (two / "errors").read_text())
        os.kill(presences(two)[1]["pid"], signal.SIGKILL)  # the launcher gives it 30 s, and it would not hear of them

    ended = launched(two, *arguments, meanwhile=freeze_and_thaw)
    assert ended.code != 0
    assert f"process 1 (pid {presences(two)[1]['pid']}" in ended.errors
    assert re.search(r"has not been heard of for [4-9] s: it is frozen", ended.errors)


@pytest.mark.timeout(300)
def test_sigterm_to_one_process_saves_and_stops_both(two: Path) -> None:
    arguments = ("run", "small.yaml", "sft.max_steps=2000", "--until", "start")
    sealed = "start-*/scratch/checkpoint-*/aligndistill_checkpoint.json"

    def send(process: subprocess.Popen[bytes]) -> None:
        wait_until(lambda: bool(list((two / "runs/store").glob(sealed))))
        os.kill(presences(two)[1]["pid"], signal.SIGTERM)

    ended = launched(two, *arguments, meanwhile=send)
    assert ended.code != 0
    assert "stopped by a signal to another process; saved" in ended.errors
    assert "exitcode: 5" in ended.errors.replace(" ", "").replace("exitcode:", "exitcode: ")
    assert "Traceback" not in ended.errors.partition("torch/distributed")[0]  # what the launcher says
