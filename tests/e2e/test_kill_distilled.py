"""kill -9 while a student is distilled, off-policy and on its own answers: the same command ends at the same weights and report."""

import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.e2e.command import ForkServer
from tests.e2e.reports import comparable_report, student_weights
from tests.e2e.small_run import write_config

STEPS, KILLED_AFTER = 8, 4
RESUMES = re.compile(rf"resuming from checkpoint-[{KILLED_AFTER}-{STEPS - 1}]\b")
NEEDED = ("prompts.jsonl", "teacher_demonstrations.jsonl", "counting_judge.py")


def distilling(config: dict[str, Any]) -> dict[str, Any]:
    """Two students of one teacher: the start, fine-tuned."""
    training = {"batch_size": 16, "max_steps": STEPS, "learning_rate": 1e-2, "max_response_tokens": 12}
    sft = {"demonstrations": {"path": "teacher_demonstrations.jsonl"}, "learning_rate": 1e-2, "batch_size": 16, "max_steps": 10}
    return {
        **config,
        "start": {"model": "../start"},
        "teacher": {"model": "../start", "sft": sft},
        "candidates": {"per_prompt": 2, "from": ["teacher", "start"], "max_new_tokens": 12},
        "students": {
            "kd": {"objective": {"kind": "distil", "on": "all"}, **training},
            "opd": {"objective": {"kind": "on_policy_distil", "samples_per_prompt": 2}, **training},
        },
        "evaluation": {"judge": None, "max_new_tokens": 8},
        "runtime": {**config["runtime"], "save_steps": 1, "per_device_train_batch_size": 8},
    }


def killing_after(folder: Path, student: str, chance: random.Random) -> Callable[[int], None]:
    """Kills a process soon after a student has so many steps behind it, in whatever it does then."""

    def kill(pid: int) -> None:
        deadline = time.monotonic() + 120
        saved = f"student-{student}-*/scratch/checkpoint-{KILLED_AFTER}/aligndistill_checkpoint.json"
        while not list((folder / "runs/store").glob(saved)) and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.05))
        os.kill(pid, signal.SIGKILL)

    return kill


@pytest.mark.timeout(300)
def test_students_that_are_killed_in_training_are_those_that_are_not(
    folder: Path, forked: ForkServer, config: dict[str, Any]
) -> None:
    whole, killed = folder / "whole", folder / "killed"
    whole.mkdir()
    for name in NEEDED:
        (whole / name).write_bytes((folder / name).read_bytes())
    write_config(whole / "run.yaml", distilling(config))
    ended = forked.run(whole, "run", "run.yaml", "--until", "rankings")
    assert ended.code == 0, ended.errors
    shutil.copytree(whole, killed)
    ended = forked.run(whole, "run", "run.yaml")
    assert ended.code == 0, ended.errors

    chance = random.Random(0)
    for student in ("kd", "opd"):
        ended = forked.run(killed, "run", "run.yaml", meanwhile=killing_after(killed, student, chance))
        assert ended.code == -signal.SIGKILL, ended.errors
        assert not list((killed / "runs/store").glob(f"student-{student}-*/manifest.json"))
        assert student == "kd" or RESUMES.search(ended.errors)
    ended = forked.run(killed, "run", "run.yaml")
    assert ended.code == 0, ended.errors
    assert RESUMES.search(ended.errors)

    start = load_file(folder / "start/model.safetensors")
    for student in ("kd", "opd"):
        once = student_weights(whole, student)
        assert all(torch.equal(value, once[name]) for name, value in student_weights(killed, student).items())
        assert max((once[name] - value).abs().max() for name, value in start.items()) > 1e-3
    assert comparable_report(killed, "run") == comparable_report(whole, "run")
