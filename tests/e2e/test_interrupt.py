"""Ctrl-C and SIGTERM: exit code 5, a word that it can go on, and it does."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.chat.fault_server import after, completion, serve
from tests.e2e.command import ForkServer
from tests.e2e.small_run import read_rows, small_config, write_config

MANIFEST = "checkpoint-*/aligndistill_checkpoint.json"
STOPS = {
    "candidates": "sampled.jsonl",
    "verdicts": "verdicts.jsonl",
    "reward_model": MANIFEST,
    "student-ppo": MANIFEST,
    "answers-ppo": "sampled.jsonl",
    "evaluation": "comparisons.jsonl",
}
"""Where a run spends its time, and what is in the stage's scratch folder once something is saved."""


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
    manifest = "student-pro-*/scratch/checkpoint-*/aligndistill_checkpoint.json"
    ended = forked.run(folder, "run", "run.yaml", meanwhile=interrupt_when(lambda: bool(list(store.glob(manifest))), number))
    assert ended.code == code, ended.errors
    assert "Traceback" not in ended.errors
    assert "Run the same command again to resume" in ended.complaint
    assert not list(store.glob("student-pro-*/manifest.json"))
    ended = forked.run(folder, "run", "run.yaml")
    assert ended.code == 0, ended.errors
    assert "resuming from checkpoint-" in ended.errors
    assert "candidates" not in ended.errors


def test_sigterm_in_each_stage_loses_nothing(folder: Path, forked: ForkServer, config: dict[str, Any]) -> None:
    """One run, stopped in one stage after the other."""
    training = {"batch_size": 8, "learning_rate": 1e-4}
    ppo = {"kind": "ppo", "samples_per_prompt": 2, "ppo_epochs": 1}
    config["judge"] = {"kind": "likelihood", "model": "start"}
    config["reward_model"] = {**training, "max_steps": 20}
    config["students"] = {"ppo": {"objective": ppo, **training, "max_steps": 6, "max_response_tokens": 12}}
    config["evaluation"] = {"judge": "same"}
    config["runtime"] = {**small_config()["runtime"], "per_device_eval_batch_size": 4}
    write_config(folder / "run.yaml", config)
    store = folder / "runs/store"
    finished, kept = dict[Path, str](), dict[str, tuple[Path, list[Any]]]()
    after_training = False
    for stage, sign in STOPS.items():

        def started(pattern: str = f"{stage}-*/scratch/{sign}") -> bool:
            return any(file.stat().st_size for file in store.glob(pattern))

        ended = forked.run(folder, "run", "run.yaml", meanwhile=interrupt_when(started, signal.SIGTERM))
        assert ended.code == 5, (stage, ended.errors)
        assert "Run the same command again to resume" in ended.complaint, stage
        assert "Traceback" not in ended.errors, stage
        finished = {**{manifest: manifest.read_text() for manifest in store.glob("*/manifest.json")}, **finished}
        assert ("resuming from checkpoint-" in ended.errors) == after_training, stage
        after_training = sign == MANIFEST
        (scratch,) = store.glob(f"{stage}-*/scratch")
        assert scratch.parent / "manifest.json" not in finished, stage
        if sign != MANIFEST:  # the file is appended to by the runs to come, and removed: another link to it stays
            os.link(scratch / sign, folder / f"{stage}.jsonl")
            kept[stage] = folder / f"{stage}.jsonl", read_rows(scratch / sign)
    ended = forked.run(folder, "run", "run.yaml")
    assert ended.code == 0, ended.errors
    for manifest, text in finished.items():  # with the seconds that it took: it was not made again
        assert manifest.read_text() == text
    for stage, (file, rows) in kept.items():
        whole = read_rows(file)
        assert 0 < len(rows) < len(whole), stage
        assert whole[: len(rows)] == rows, stage
        once = {(row["prompt_id"], row.get("author"), row.get("sample")) for row in whole}
        assert len(once) == len(whole), stage
    report = json.loads((folder / "runs/run/report.json").read_text())
    assert "ppo" in report["students"]


def test_while_waiting_for_a_server(folder: Path, forked: ForkServer, config: dict[str, Any]) -> None:
    config["candidates"]["per_prompt"] = 2
    with serve(*[completion("A")] * 20, after(100, completion("A"))) as server:
        model = {"kind": "endpoint", "base_url": server.base_url, "name": "judge", "concurrency": 2}
        config["judge"] = {"kind": "pairwise", "model": model}
        write_config(folder / "run.yaml", config)
        began = time.monotonic()
        ended = forked.run(
            folder, "run", "run.yaml", "--until", "verdicts", meanwhile=interrupt_when(lambda: len(server.bodies) > 20)
        )
        assert time.monotonic() - began < 80
    assert ended.code == 5, ended.errors
    assert "Run the same command again to resume" in ended.complaint
    assert "Traceback" not in ended.errors
