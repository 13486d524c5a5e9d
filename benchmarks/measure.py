"""Run a row: every side in its own process, in turns, and what the rounds say."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.environments import ROOT, python_of

WORK = ROOT / "benchmarks" / ".work"
TOLERANCE = 1e-4
"""Losses and gradient norms of two sides that do the same work in float32 differ by no more, relative to the larger of 1 and
their size."""

Round = dict[str, Any]
"""What a side says of a round: `seconds` of each timed piece of work, `samples` in each, `added_bytes`, and more."""


@dataclass(frozen=True)
class Side:
    """Who does the work.

    Attributes:
        label: as the table names it.
        environment: `ours`, or one of `environments.PEERS`.
        function: `module:function` below `benchmarks.sides`.
        settings: added to the row's.
        same_curve: whether losses and gradient norms must be those of our side.
    """

    label: str
    environment: str
    function: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    same_curve: bool = True


@dataclass(frozen=True)
class Row:
    """One piece of work and who does it.

    Attributes:
        make_world: writes the files that all sides read.
        settings: given to every side.
        piece: what one entry of `seconds` is: a step, an update, three epochs.
        aims: what the ratios should reach, in words.
        says: what is the same on both sides and what is not.
        most_rounds: where a round takes long.
        timed: False where only the equality of the work is asked, of one round.
        gpu: whether its full size is for a GPU.
        tolerance: as `TOLERANCE`, in what the work is computed in.
        flops: of the files, the operations that one piece needs (see `flops`); with it, shares of the machine's rate are told.
    """

    name: str
    title: str
    make_world: Callable[[Path], None]
    ours: Side
    peers: Sequence[Side]
    settings: Mapping[str, Any]
    piece: str = "step"
    aims: str = ""
    says: str = ""
    most_rounds: int = 100
    timed: bool = True
    gpu: bool = False
    tolerance: float = TOLERANCE
    flops: Callable[[Path], float] | None = None


@dataclass(frozen=True)
class Ratio:
    """A median with its extremes: how many times as much the peer takes."""

    median: float
    low: float
    high: float


class SideFailed(Exception):
    """A side's process ended before its work did."""


class Worker:
    """A side's process."""

    def __init__(self, side: Side, row: Row, folder: Path, threads: int) -> None:
        module, function = side.function.split(":")
        self._side = side
        self._log = folder / f"{side.label.replace(' ', '_').replace('/', '_')}.log"
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            "OMP_WAIT_POLICY": "PASSIVE",  # the side whose turn it is not must not spin
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "TQDM_DISABLE": "1",
        }
        command = [str(python_of(side.environment)), "-m", "benchmarks.worker", f"benchmarks.sides.{module}", function]
        self._process = subprocess.Popen(
            [*command, str(folder), json.dumps({**row.settings, **side.settings})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log.open("w"),
            text=True,
            cwd=ROOT,
            env=environment,
        )

    def ready(self) -> None:
        """Wait until everything is imported."""
        self._answer()

    def round(self, number: int) -> Round:
        """Do one round."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{number}\n")
        self._process.stdin.flush()
        return self._answer()

    def end(self) -> None:
        """No more rounds."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def _answer(self) -> Round:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SideFailed(f"{self._side.label} failed; see {self._log}:\n" + self._log.read_text()[-3000:])
        answer: Round = json.loads(line)
        return answer


def run_row(row: Row, rounds: int, threads: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Do a row's rounds in turns, A B A B, and sum them up."""
    folder = new_folder(WORK / row.name)
    rounds = min(rounds, row.most_rounds) if row.timed else 1
    row.make_world(folder)
    flops = row.flops(folder) if row.flops else None
    rate = measured_rate(threads) if flops else None
    sides = [row.ours, *row.peers]
    found: dict[str, list[Round]] = {side.label: [] for side in sides}
    workers: list[Worker] = []
    try:
        for side in sides:
            workers.append(Worker(side, row, folder, threads))
            workers[-1].ready()
        for number in range(rounds):
            for side, worker in zip(sides, workers, strict=True):
                found[side.label].append(worker.round(number))
                seconds = median(found[side.label][-1]["seconds"])
                say(f"  {row.name} {number + 1}/{rounds} {side.label}: {seconds:.3f} s a {row.piece}")
    finally:
        for worker in workers:
            worker.end()
        for path in folder.iterdir():  # the logs stay; models may be large
            if path.is_dir():
                shutil.rmtree(path)
    result = summary(row, found)
    if flops and rate:
        result |= {"flops": flops, "matrix_rate": rate}
        for side in result["sides"].values():
            side["share"] = flops / side["seconds"] / rate["flops_per_second"]
    return result


def measured_rate(threads: int) -> dict[str, Any]:
    """What `matrix_rate` prints, of a process of its own: it leaves no memory taken."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "benchmarks.matrix_rate"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def new_folder(folder: Path) -> Path:
    """The folder, empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def summary(row: Row, found: Mapping[str, list[Round]]) -> dict[str, Any]:
    """A row's numbers as they are written to the results."""
    ours = found[row.ours.label]
    sides = {label: _side_summary(rounds) for label, rounds in found.items()}
    for peer in row.peers:
        theirs = found[peer.label]
        ratios = [median(b["seconds"]) / median(a["seconds"]) for a, b in zip(ours, theirs, strict=True)]
        differences = [curve_difference(a, b) for a, b in zip(ours, theirs, strict=True)]
        known = [one for one in differences if one is not None]
        difference = median(known) if len(known) == len(differences) else None
        sides[peer.label] |= {
            "times_slower": vars(Ratio(median(ratios), min(ratios), max(ratios))),
            "times_the_memory": theirs[0]["added_bytes"] / ours[0]["added_bytes"],
            "curve_difference": difference,
            "curve_differences": differences,
            "equal_work": None if not peer.same_curve else difference is not None and difference <= row.tolerance,
        }
    return {
        "name": row.name,
        "title": row.title,
        "ours": row.ours.label,
        "piece": row.piece,
        "aims": row.aims,
        "says": row.says,
        "settings": dict(row.settings),
        "timed": row.timed,
        "gpu": row.gpu,
        "tolerance": row.tolerance,
        "sides": sides,
        "rounds": found,
    }


def _side_summary(rounds: Sequence[Round]) -> dict[str, Any]:
    seconds = median(median(one["seconds"]) for one in rounds)
    # Only a process's first round begins with fresh memory: later ones reuse what the allocator kept.
    return {"seconds": seconds, "samples_per_second": rounds[0]["samples"] / seconds, "added_bytes": rounds[0]["added_bytes"]}


def curve_difference(ours: Round, theirs: Round) -> float | None:
    """The largest difference of losses and gradient norms, relative to the larger of 1 and their size; None if there are none."""
    differences = []
    for name in ("losses", "gradient_norms"):
        mine, yours = ours.get(name) or [], theirs.get(name) or []
        if len(mine) != len(yours):
            return None
        differences += [abs(a - b) / max(1.0, abs(a)) for a, b in zip(mine, yours, strict=True)]
    return max(differences, default=None)


def environment_versions(environment: str) -> dict[str, str]:
    """The versions of the libraries that matter in an environment."""
    script = (
        "import importlib.metadata as m, json; "
        "print(json.dumps({n: m.version(n) for n in ('torch', 'transformers', 'trl', 'accelerate', 'datasets')}))"
    )
    done = subprocess.run([str(python_of(environment)), "-c", script], check=True, capture_output=True, text=True)
    versions: dict[str, str] = json.loads(done.stdout)
    return versions
