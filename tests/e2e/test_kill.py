"""kill -9 anywhere: the same command resumes, makes the same report, and asks the judge nothing twice."""

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
from tests.e2e.reports import comparable_report, written_rows
from tests.e2e.small_run import PROMPTS, read_rows, small_config, write_config

# Where to kill: within so many seconds of a stage's beginning, or when the judge has been asked so many times.
MOMENTS: list[tuple[str, float] | int] = [
    ("start", 1.2),
    ("start", 1.2),
    ("prompts", 0.02),
    ("candidates", 0.3),
    10,
    40,
    ("reward_model", 0.8),
    ("student-best_of_n", 0.4),
    ("student-dpo", 0.5),
    ("student-pro", 0.5),
    ("answers-dpo", 0.2),
    PROMPTS + 20 + 8,  # 20 canaries are judged with the prompts; this is in the evaluation
    ("report", 0.8),
]


def killing_at(moment: tuple[str, float] | int, folder: Path, chance: random.Random, killed: list[str]) -> Callable[[int], None]:
    """Kills a process at such a moment, unless it ends before."""

    def reached() -> bool:
        if isinstance(moment, int):
            calls = folder / CALLS
            return calls.exists() and calls.read_bytes().count(b"\n") >= moment
        return bool(list((folder / "runs/store").glob(f"{moment[0]}-*")))

    def kill(pid: int) -> None:
        while not reached():
            if not alive(pid):
                return
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.003 if isinstance(moment, int) else moment[1]))
        if alive(pid):
            os.kill(pid, signal.SIGKILL)
            killed.append(str(moment))

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
    for moment in MOMENTS:
        ended = forked.run(killed, "run", "small.yaml", meanwhile=killing_at(moment, killed, chance, kills))
        assert ended.code in (0, -signal.SIGKILL), ended.errors
    ended = forked.run(killed, "run", "small.yaml")
    assert ended.code == 0, ended.errors
    assert len(kills) >= len(MOMENTS) - 4, kills
    while_judging = [moment for moment in MOMENTS if str(moment) in kills and isinstance(moment, int)]
    assert len(while_judging) == 3

    rows, lines = written_rows(killed, "candidates", "candidates.jsonl")
    assert (rows, lines) == written_rows(whole, "candidates", "candidates.jsonl")
    assert len(lines) == rows.count(b"\n")
    assert comparable_report(killed) == comparable_report(whole)
    asked, once = ([tuple(call) for call in read_rows(place / CALLS)] for place in (killed, whole))
    assert set(asked) == set(once)
    # A call whose answer was not yet on disk when the process died is the one that may come again.
    assert len(asked) - len(once) <= len(while_judging)
