"""kill -9 anywhere: the same command goes on, comes to the same report, and asks the judge nothing twice."""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.command import ForkServer
from tests.e2e.counting_judge import CALLS
from tests.e2e.reports import comparable_report
from tests.e2e.small_run import read_rows, small_config, write_config

# A stage to kill in, and the most seconds to wait in it.
MOMENTS = [
    ("start", 1.2),
    ("start", 1.2),
    ("prompts", 0.02),
    ("candidates", 0.3),
    ("verdicts", 0.3),
    ("verdicts", 0.3),
    ("reward_model", 0.8),
    ("student-best_of_n", 0.4),
    ("student-dpo", 0.5),
    ("student-pro", 0.5),
    ("answers-dpo", 0.2),
    ("evaluation", 0.3),
    ("report", 0.8),
]
JUDGING = {"verdicts", "evaluation"}


def killing_in(store: Path, stage: str, seconds: float, killed: list[str]) -> Callable[[int], None]:
    """Kills a process so many seconds after a stage's folder is there."""

    def kill(pid: int) -> None:
        while not list(store.glob(f"{stage}-*")):
            if not alive(pid):
                return
            time.sleep(0.002)
        time.sleep(seconds)
        if alive(pid):
            os.kill(pid, signal.SIGKILL)
            killed.append(stage)

    return kill


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def kill_config() -> dict[str, Any]:
    """The small run with a judge that writes down what it is asked."""
    whole = small_config()
    del whole["teacher"]
    return {**whole, "judge": {"kind": "function", "function": "counting_judge:grade"}}


@pytest.mark.parametrize("seed", [0])
def test_a_run_that_is_killed_everywhere_ends_like_one_that_was_not(folder: Path, forked: ForkServer, seed: int) -> None:
    whole, killed = folder / "whole", folder / "killed"
    for place in (whole, killed):
        place.mkdir()
        for name in ("prompts.jsonl", "student_demonstrations.jsonl", "counting_judge.py"):
            (place / name).write_bytes((folder / name).read_bytes())
        write_config(place / "small.yaml", kill_config())
    ended = forked.run(whole, "run", "small.yaml")
    assert ended.code == 0, ended.errors

    chance, kills = random.Random(seed), list[str]()
    for stage, most_seconds in MOMENTS:
        meanwhile = killing_in(killed / "runs/store", stage, chance.uniform(0, most_seconds), kills)
        ended = forked.run(killed, "run", "small.yaml", meanwhile=meanwhile)
        assert ended.code in (0, -signal.SIGKILL), ended.errors
    ended = forked.run(killed, "run", "small.yaml")
    assert ended.code == 0, ended.errors
    assert len(kills) >= len(MOMENTS) - 4, kills

    assert comparable_report(killed) == comparable_report(whole)
    asked = [tuple(call) for call in read_rows(killed / CALLS)]
    assert set(asked) == {tuple(call) for call in read_rows(whole / CALLS)}
    # A call whose answer was not yet on disk when the process died is the one that may come again.
    assert len(asked) - len(set(asked)) <= sum(stage in JUDGING for stage in kills)
