"""launch/judge_then_train.sh: the judge's server runs only while it is needed, and is stopped whatever happens."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.command import ENVIRONMENT, REPOSITORY, ForkServer
from tests.e2e.small_run import write_config, write_rows

SCRIPT = REPOSITORY / "launch" / "judge_then_train.sh"


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def run_script(
    python: str, folder: Path, port: int, judge: str, script: Path = SCRIPT, **variables: str
) -> subprocess.CompletedProcess[str]:
    """The script with `aligndistill` and `deepspeed` of this environment, run by a Python, on CPUs."""
    programs = folder / "bin"
    if not programs.exists():
        programs.mkdir()
        for name, module in (("aligndistill", "aligndistill"), ("deepspeed", "deepspeed.launcher.runner")):
            (programs / name).write_text(f'#!/usr/bin/env bash\nexec {python} -m {module} "$@"\n')
            (programs / name).chmod(0o755)
    environment = {**os.environ, **ENVIRONMENT, "PATH": f"{programs}:{os.environ['PATH']}", "DS_ACCELERATOR": "cpu"}
    environment |= {
        "JUDGE": judge,
        "JUDGE_URL": f"http://127.0.0.1:{port}",
        "NUM_GPUS": "2",
        "MASTER_PORT": str(port + 1),
        **variables,
    }
    return subprocess.run(
        [str(script), "run.yaml"], cwd=folder, env=environment, capture_output=True, text=True, timeout=400, check=False
    )


def served(config: dict[str, Any], port: int) -> dict[str, Any]:
    model = {"kind": "endpoint", "base_url": f"http://127.0.0.1:{port}/v1", "name": "judge", "max_retries": 0}
    return {**config, "judge": {"kind": "pairwise", "model": model}, "audit": {"probes": {"canaries": 0, "repeats": 0}}}


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.skipif(shutil.which("curl") is None, reason="the script needs curl")
@pytest.mark.timeout(600)
def test_server_and_training_take_turns(folder: Path, config: dict[str, Any], port: int, forked: ForkServer) -> None:
    whole = served(config, port)
    training = {"batch_size": 16, "max_steps": 4, "learning_rate": 1e-3}
    students = {"dpo": {"objective": {"kind": "dpo"}, **training}}
    whole |= {"teacher": whole["judge"]["model"], "reward_model": training, "students": students}
    whole["evaluation"] = {"against_teacher": True}
    write_config(folder / "run.yaml", whole)
    judge = f"(ls runs/store; echo .) >> made.txt; exec {forked.python} -m tests.e2e.judge_server {port} 1"
    ended = run_script(forked.python, folder, port, judge)
    assert ended.returncode == 0, ended.stderr
    # What was made before each start of the server: everything that needs GPUs and no server.
    before, later = (
        {name.rpartition("-")[0] for name in part.split()} for part in (folder / "made.txt").read_text().split(".\n")[:2]
    )
    assert "candidates" in before
    assert not before & {"verdicts", "student-dpo"}
    assert later >= {"rankings", "reward_model", "student-dpo", "answers-dpo", "answers-start"}
    assert not later & {"answers-teacher", "evaluation"}
    assert (folder / "runs/run/report.json").is_file()
    steps = [line for line in ended.stdout.splitlines() if line.startswith("judge: ")]
    once = ["judge: starting, output in judge.log", f"judge: healthy at http://127.0.0.1:{port}", "judge: stopped"]
    assert steps == once * 2
    assert (folder / "judge.log").read_text() == "loading the model\n" * 2
    assert not listens(port)
    again = run_script(forked.python, folder, port, judge)
    assert again.returncode == 0, again.stderr
    assert "judge: starting" not in again.stdout
    assert "Nothing to do" in again.stdout


SOURCE = {"path": "prompts.jsonl"}
ELICITED = {"name": "more", "kind": "expand", "target": 5, "model": "teacher"}
GRADED = {"quality": {"judge": {"kind": "rubric", "model": "teacher"}, "at_least": 5}}
LABELLED = {"demonstrations": {"label": {"model": "teacher"}}, "batch_size": 16, "max_steps": 4}
READY = {"rankings": {"source": {"path": "rankings.jsonl"}, "filters": GRADED}, "prompts": None, "candidates": None, "judge": None}


@pytest.mark.parametrize(
    ("first", "sections"),
    [
        ("local.sh", {}),
        ("with_judge.sh", {"prompts": {"source": SOURCE, "elicit": [ELICITED]}}),
        ("with_judge.sh", {"prompts": {"source": SOURCE, "filters": GRADED}}),
        ("with_judge.sh", {"sft": LABELLED}),
        ("with_judge.sh", {"candidates": {"from": ["start", "teacher"]}}),
        ("with_judge.sh", READY),
    ],
    ids=["judge", "prompts", "filters", "labels", "candidates", "filters of rankings"],
)
def test_nothing_that_a_server_is_asked_for_is_made_without_it(
    first: str, sections: dict[str, Any], folder: Path, config: dict[str, Any], port: int, forked: ForkServer
) -> None:
    """The two scripts that it calls say which was called, and end it."""
    write_rows(folder / "rankings.jsonl", [{"prompt": f"{n}", "chosen": "a b c", "rejected": "a"} for n in range(20)])
    whole = served(config, port)
    whole |= {"teacher": whole["judge"]["model"], **sections}
    whole = {name: section for name, section in whole.items() if section is not None}
    write_config(folder / "run.yaml", whole)
    script = Path(shutil.copy(SCRIPT, folder))
    for name in ("local.sh", "with_judge.sh"):
        (folder / name).write_text(f"#!/bin/sh\necho called {name} $*\nexit 7\n")
        (folder / name).chmod(0o755)
    ended = run_script(forked.python, folder, port, "no server", script)
    assert ended.returncode == 7, ended.stderr
    until = {"local.sh": "run.yaml --until candidates", "with_judge.sh": "aligndistill run run.yaml --until rankings"}
    assert [line for line in ended.stdout.splitlines() if line.startswith("called")] == [f"called {first} {until[first]}"]


def test_a_config_that_cannot_be_planned_starts_no_server(
    folder: Path, config: dict[str, Any], port: int, forked: ForkServer
) -> None:
    write_config(folder / "run.yaml", served(config, port) | {"studnets": {}})
    ended = run_script(forked.python, folder, port, "touch started")
    assert ended.returncode == 2
    assert "studnets" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (folder / "started").exists()


@pytest.mark.skipif(shutil.which("curl") is None, reason="the script needs curl")
def test_a_server_that_does_not_start_is_an_error_with_the_end_of_its_log(
    folder: Path, config: dict[str, Any], port: int, forked: ForkServer
) -> None:
    write_config(folder / "run.yaml", served(config, port))
    ended = run_script(forked.python, folder, port, "echo no such model; exit 1", NUM_GPUS="1")
    assert ended.returncode == 4
    assert "ended before it was healthy" in ended.stderr
    assert "no such model" in ended.stderr
    never = f"{forked.python} -m tests.e2e.judge_server {port} 100"
    slow = run_script(forked.python, folder, port, never, JUDGE_SECONDS="2", NUM_GPUS="1")
    assert slow.returncode == 4
    assert "not healthy within 2 s (JUDGE_SECONDS)" in slow.stderr
    assert "judge: stopped" in slow.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="the script needs curl")
def test_a_run_that_fails_stops_the_server_too(folder: Path, config: dict[str, Any], port: int) -> None:
    """All programs are started as a user's are, unlike in the other tests."""
    write_config(folder / "run.yaml", served(config, port) | {"rankings": {"tie_margin": 1000}})
    ended = run_script(sys.executable, folder, port, f"{sys.executable} -m tests.e2e.judge_server {port}", NUM_GPUS="1")
    assert ended.returncode == 3
    assert "judge: stopped" in ended.stdout
    assert not listens(port)
