"""Ctrl-C and SIGTERM: exit code 5, a word that it can go on, and it does; a second Ctrl-C ends at once."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.chat.fault_server import after, completion, serve
from tests.e2e.command import ForkServer
from tests.e2e.small_run import write_config


def interrupt_when(ready: Callable[[], bool], number: signal.Signals = signal.SIGINT) -> Callable[[int], None]:
    def interrupt(pid: int) -> None:
        deadline = time.monotonic() + 60
        while not ready():
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.kill(pid, number)

    return interrupt


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 5), (signal.SIGTERM, 5)])
def test_in_training(folder: Path, forked: ForkServer, config: dict[str, Any], number: signal.Signals, code: int) -> None:
    config["students"]["pro"]["max_steps"] = 40
    write_config(folder / "run.yaml", config)
    store = folder / "runs/store"
    sealed = "student-pro-*/scratch/checkpoint-*/aligndistill_checkpoint.json"
    ended = forked.run(folder, "run", "run.yaml", meanwhile=interrupt_when(lambda: bool(list(store.glob(sealed))), number))
    assert ended.code == code, ended.errors
    assert "Traceback" not in ended.errors
    assert "same command goes on" in ended.complaint
    assert not list(store.glob("student-pro-*/manifest.json"))
    ended = forked.run(folder, "run", "run.yaml")
    assert ended.code == 0, ended.errors
    assert "goes on from checkpoint-" in ended.errors
    assert "candidates" not in ended.errors


def test_while_waiting_for_a_server(folder: Path, forked: ForkServer, config: dict[str, Any]) -> None:
    config["candidates"]["per_prompt"] = 2
    with serve(*[completion("A")] * 20, after(30, completion("A"))) as server:
        model = {"kind": "endpoint", "base_url": server.base_url, "name": "judge", "concurrency": 2}
        config["judge"] = {"kind": "pairwise", "model": model}
        write_config(folder / "run.yaml", config)
        began = time.monotonic()
        ended = forked.run(
            folder, "run", "run.yaml", "--until", "verdicts", meanwhile=interrupt_when(lambda: len(server.bodies) > 20)
        )
        assert time.monotonic() - began < 20
    assert ended.code == 5, ended.errors
    assert "same command goes on" in ended.complaint
    assert "Traceback" not in ended.errors
