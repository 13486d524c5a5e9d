"""`python -m benchmarks.real_model MODEL_FOLDER HH_FILE`: a real model learns a known reward, by method and over seeds.

The reward is VADER's sentiment (`pip install vaderSentiment`), the prompts are first turns of HH-RLHF (`HH_FILE` is one of its
`.jsonl` or `.jsonl.gz` files), and every student is trained with LoRA: `benchmarks/real_model.yaml`. The first seed trains all of
its students, the others those of DPO and PPO. TRL's DPOTrainer learns from the pairs of a run of its own, with fewer prompts since
a pair takes it seconds, with the same adapters, beta, learning rate and pairs in a step; held-out prompts are the same for both.
"""

import argparse
import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.environments import ROOT
from benchmarks.frontier import RESULTS, SEEDS, Point, finished_run, points_of, table, write

WORK = ROOT / "benchmarks" / ".work" / "real-model"
CONFIG = "benchmarks/real_model.yaml"
PROMPTS = 288
CHARACTERS = range(15, 101)
FIRST_SEED_ONLY = ("simpo-1e-4", "rrhf-1e-4", "pro-1e-4", "ppo-20")
PEER = "dpo-3e-4"
"""The student whose settings TRL gets."""
PEER_RUN = ["prompts.held_out=0.78", *(f"students.{name}=null" for name in (*FIRST_SEED_ONLY, "dpo-1e-4", "ppo-40"))]
"""About 60 prompts for training, and the others for a narrow interval."""


def first_turns(hh_file: Path) -> Iterator[str]:
    """The different first human turns of a file of HH-RLHF that are neither very short nor long."""
    content = hh_file.read_bytes()
    seen = set()
    for row in (gzip.decompress(content) if hh_file.suffix == ".gz" else content).splitlines():
        turn = json.loads(row)["chosen"].split("\n\nAssistant:")[0].removeprefix("\n\nHuman:").strip()
        if len(turn) in CHARACTERS and turn not in seen:
            seen.add(turn)
            yield turn


def write_prompts(hh_file: Path, path: Path) -> None:
    """The first prompts of the file as rows of a prompt each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    turns = [turn for _, turn in zip(range(PROMPTS), first_turns(hh_file), strict=False)]
    path.write_text("".join(json.dumps({"prompt": turn}) + "\n" for turn in turns), encoding="utf-8")


def trl_point(model: Path, run: Path, seed: int) -> tuple[Point, float]:
    """TRL's DPO on the pairs of a finished run, in a process of its own; the seconds of a pair in training."""
    command = [sys.executable, "-m", "benchmarks.sides.trl_real_model", str(model), str(run), str(WORK / "trl"), PEER, str(seed)]
    found = json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
    return Point("TRL", f"TRL {PEER}", seed, found["truth"], found["kl_nats"]), found["seconds_per_pair"]


def beside_trl(model: Path, seed: int) -> tuple[list[Point], str]:
    """A run with few prompts for training, TRL on its pairs, and the seconds of a pair of both."""
    run = finished_run(CONFIG, "real-model-trl", seed, f"start.model={model}", *PEER_RUN)
    theirs, seconds = trl_point(model, run, seed)
    ours = next(point for point in points_of(run / "report.json") if point.student == PEER)
    return [ours, theirs], f"Seconds a pair in training: {seconds:.2f} by TRL, {seconds_per_pair(run):.2f} here ({PEER}).\n"


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real_model", description=__doc__)
    parser.add_argument("model", type=Path, help="a model folder, such as Gemma 3 270M")
    parser.add_argument("hh_file", type=Path, help="a file of HH-RLHF, such as harmless-base-test.jsonl.gz")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--without-trl", action="store_true", help="ours alone")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for real_model.json, .md and .svg")
    arguments = parser.parse_args()
    write_prompts(arguments.hh_file, WORK / "prompts.jsonl")
    model = arguments.model.resolve()
    points = []
    for seed in arguments.seeds:
        without = [f"students.{name}=null" for name in FIRST_SEED_ONLY if seed != arguments.seeds[0]]
        points += points_of(finished_run(CONFIG, "real-model", seed, f"start.model={model}", *without) / "report.json")
    beside = ""
    if not arguments.without_trl:
        compared, speeds = beside_trl(model, arguments.seeds[0])
        beside = f"\nOn the pairs of fewer prompts:\n\n{table(compared)}\n{speeds}"
    write(points, arguments.results / "real_model", beside)


def seconds_per_pair(run: Path) -> float:
    """Of the student whose settings TRL gets: its training's seconds over the run's training pairs."""
    from aligndistill import open_run

    opened = open_run(run)
    pairs = (opened.stages["rankings"] / "pairs.jsonl").read_text().count("\n")
    seconds = opened.report.students[PEER].train_seconds
    assert seconds is not None
    return seconds / pairs


if __name__ == "__main__":
    main()
