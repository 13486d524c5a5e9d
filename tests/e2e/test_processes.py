"""The pipeline on two processes: the same metrics as on one; and however one of them ends, the run reports the cause."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import failing_reward
from tests.e2e.command import ENVIRONMENT, REPOSITORY, Ended, ForkServer, command, ranks
from tests.e2e.small_run import small_config, write_config, write_data

PORT = 29700 + os.getpid() % 200


def launched(
    python: str, folder: Path, *arguments: str, meanwhile: Callable[[subprocess.Popen[bytes]], None] | None = None
) -> Ended:
    """`torchrun -m aligndistill ARGUMENTS` with two processes."""
    torchrun = [python, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(PORT)]
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


def heartbeats(folder: Path) -> dict[int, dict[str, Any]]:
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
    """Send it a signal when a stage has started."""

    def send(process: subprocess.Popen[bytes]) -> None:
        wait_until(lambda: any(words.startswith(stage) for words in heartbeats(folder).get(0, {}).get("announced", [])))
        wait_until(lambda: 1 in heartbeats(folder))  # its first heartbeat may come later than the other's first stage
        os.kill(heartbeats(folder)[1]["pid"], number)

    return send


@pytest.fixture
def two(tmp_path: Path) -> Path:
    write_data(tmp_path)
    write_config(tmp_path / "small.yaml", small_config())
    return tmp_path


def zero(stage: int) -> str:
    return f"runtime.deepspeed={REPOSITORY}/configs/deepspeed/zero{stage}.json"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """The small run to its report, by torchrun, under ZeRO-2. Its processes are started as a user's are; later ones are forked."""
    folder = tmp_path_factory.mktemp("two")
    write_data(folder)
    write_config(folder / "small.yaml", small_config())
    return folder, launched(sys.executable, folder, "run", "small.yaml", zero(2))


@pytest.mark.timeout(300)
def test_torchrun_under_zero_2_comes_to_the_report(finished: tuple[Path, Ended], forked: ForkServer) -> None:
    folder, ended = finished
    assert ended.code == 0, ended.errors
    assert (folder / "runs/small/report.json").is_file()
    assert "* leading" in ended.output
    found = heartbeats(folder)
    assert all(one["finished"] for one in found.values())
    assert any("the answers of" in words for words in found[1]["announced"])
    assert any("verdicts" in words for words in found[1]["announced"])
    assert_same_samples(folder, forked)


@pytest.mark.timeout(300)
def test_the_run_starts_deepspeeds_launcher_itself_under_zero_3(two: Path, forked: ForkServer) -> None:
    """All processes are started as a user's are, unlike in other tests of this launcher."""
    launcher = ("runtime.launcher=deepspeed", "runtime.processes=2", zero(3))
    ended = command(two, "run", "small.yaml", "--until", "student-dpo", *launcher, environment={"DS_ACCELERATOR": "cpu"})
    assert ended.code == 0, ended.errors
    assert heartbeats(two).keys() == {0, 1}
    assert_same_samples(two, forked)


def assert_same_samples(folder: Path, forked: ForkServer) -> None:
    """One process writes, from the same start, what the two wrote. Their start is not one process's: rounding grew in 30 steps."""
    (candidates,) = (folder / "runs/store").glob("candidates-*")
    shared = (candidates / "candidates.jsonl").read_text()
    shutil.move(candidates, folder / "of-two-processes")
    alone = forked.run(folder, "run", "small.yaml", "--until", "candidates")
    assert alone.code == 0, alone.errors
    assert (candidates / "candidates.jsonl").read_text() == shared


@pytest.mark.timeout(300)
def test_what_one_process_raises_in_training_ends_both_and_is_the_last_message(
    folder: Path, config: dict[str, Any], forked: ForkServer
) -> None:
    shutil.copy(failing_reward.__file__, folder)
    function = {"kind": "function", "function": "failing_reward:raises_in_one_process"}
    ppo = {"kind": "ppo", "reward": function, "critic": "shared", "samples_per_prompt": 2, "ppo_epochs": 1}
    training = {"batch_size": 8, "max_steps": 4, "learning_rate": 1e-4, "max_response_tokens": 12}
    config["students"] = {"ppo": {"objective": ppo, **training}}
    config["runtime"] |= {"launcher": "deepspeed", "processes": 2, "save_steps": 1}
    write_config(folder / "run.yaml", config)
    ended = forked.run(folder, "run", "run.yaml", "--until", "student-ppo", zero(2))
    assert list((folder / "runs/store").glob("student-ppo-*/scratch/checkpoint-1/aligndistill_checkpoint.json"))
    assert ended.code == 4, ended.errors
    last, resume = ended.errors.strip().splitlines()[-2:]
    assert resume.startswith("to resume: aligndistill run ")
    assert last.startswith("error: the judge function failing_reward:raises_in_one_process")
    assert "ValueError: this one has no grade" in last
    found = heartbeats(folder)
    assert found[1]["exit_code"] == 4
    assert found[0]["exit_code"] in (None, 4)  # it raises the same, unless it is ended before


@pytest.mark.timeout(300)
@pytest.mark.parametrize("stage", ["student-dpo"])
def test_a_killed_process_ends_the_run_with_its_name(
    finished: tuple[Path, Ended], tmp_path: Path, stage: str, forked: ForkServer
) -> None:
    two = tmp_path / "two"
    shutil.copytree(finished[0], two)
    shutil.rmtree(two / "runs/store/processes")
    steps = "students.dpo.max_steps=80"
    ended = launched(forked.python, two, "run", "small.yaml", steps, meanwhile=to_the_second_process(two, stage, signal.SIGKILL))
    assert ended.code != 0
    pid = heartbeats(two)[1]["pid"]
    assert f"error: process 1 (pid {pid}" in ended.errors
    assert "exited without an error message" in ended.errors
    manifests = list((two / "runs/store").glob("student-dpo-*/scratch/checkpoint-*/aligndistill_checkpoint.json"))
    again = forked.run(two, "run", "small.yaml", steps, "--until", stage, environments=ranks(2, PORT + 1))
    assert again.code == 0, again.errors
    assert not manifests or re.search(r"resuming from checkpoint-\d+", again.errors)


@pytest.mark.timeout(300)
def test_a_frozen_process_ends_the_run(two: Path, forked: ForkServer) -> None:
    arguments = ("run", "small.yaml", "runtime.heartbeat_timeout_seconds=4", "--until", "start")
    frozen = to_the_second_process(two, "start", signal.SIGSTOP)

    def freeze_and_thaw(process: subprocess.Popen[bytes]) -> None:
        frozen(process)
        wait_until(lambda: "no heartbeat of" in (two / "errors").read_text())
        os.kill(heartbeats(two)[1]["pid"], signal.SIGKILL)  # the launcher gives it 30 s, and it would not notice them

    ended = launched(forked.python, two, *arguments, meanwhile=freeze_and_thaw)
    assert ended.code != 0
    assert f"process 1 (pid {heartbeats(two)[1]['pid']}" in ended.errors
    assert re.search(r"no heartbeat of process 1 .* for [4-9] s: it is not responding", ended.errors)


@pytest.mark.timeout(300)
def test_sigterm_to_one_process_saves_and_stops_both(two: Path, forked: ForkServer) -> None:
    arguments = ("run", "small.yaml", "sft.max_steps=2000", "--until", "start")
    manifests = "start-*/scratch/checkpoint-*/aligndistill_checkpoint.json"

    def send(process: subprocess.Popen[bytes]) -> None:
        wait_until(lambda: bool(list((two / "runs/store").glob(manifests))))
        os.kill(heartbeats(two)[1]["pid"], signal.SIGTERM)

    ended = launched(forked.python, two, *arguments, meanwhile=send)
    assert ended.code != 0
    assert "stopped by a signal to another process; saved" in ended.errors
    assert "exitcode: 5" in ended.errors.replace(" ", "").replace("exitcode:", "exitcode: ")
    assert "Traceback" not in ended.errors.partition("torch/distributed")[0]  # what the launcher says
