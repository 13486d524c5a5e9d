"""Prompts to rankings in the store: `python -m benchmarks.rankings [PROMPTS ...]`.

Each of the four stages is run as in any run, in a process of its own: `prompts` reads a JSONL file, `candidates` gets two answers
to each prompt from a function, `verdicts` judges them, with `--judge pairwise` by a function that is asked in both orders like a
chat model, else by one that grades, and `rankings` writes rankings and pairs. Time is the processor's; memory is the highest
resident memory of the stage over that before it.
"""

import argparse
import json
import multiprocessing
import tempfile
import time
from pathlib import Path

from aligndistill.config.audit import AuditProbes
from aligndistill.config.data import Prompts, Source
from aligndistill.config.judges import Function, Judge, Pairwise
from aligndistill.config.models import FunctionModel
from aligndistill.config.run import Candidates, Rankings, Runtime
from aligndistill.runs.make import run_stage
from aligndistill.stages import candidates, prompts, rankings, verdicts
from aligndistill.store.stage import Stage, stage

SIZES = (10_000, 100_000, 1_000_000)
STAGES = ("prompts", "candidates", "verdicts", "rankings")
JUDGES = ("function", "pairwise")
OPENING = "Answer number"
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def answer(messages: list[dict[str, str]], sample: int, seed: int) -> str:
    """An answer of some 30 words; asked to compare two, the number of the better one is 1."""
    text = messages[-1]["content"]
    if "letter A or B" in text:
        return "A" if text.find(f"{OPENING} 1 ") < text.find(f"{OPENING} 0 ") else "B"
    return f"{OPENING} {sample} to this: " + "so it is, as far as I know. " * (4 + sample)


def grade(prompt: str, responses: list[str]) -> list[float]:
    """The longer one is better."""
    return [float(len(one)) for one in responses]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rankings", description=__doc__)
    parser.add_argument("prompts", nargs="*", type=int, default=SIZES)
    parser.add_argument("--judge", choices=JUDGES, default="function")
    arguments = parser.parse_args()
    forked = multiprocessing.get_context("fork")
    print("| prompts | " + " | ".join(f"{name}: seconds | MiB added" for name in STAGES) + " | on disk, MiB |")
    print("| ---: |" + " ---: | ---: |" * len(STAGES) + " ---: |")
    for count in arguments.prompts:
        with tempfile.TemporaryDirectory() as folder:
            write_prompts(Path(folder, "prompts.jsonl"), count)
            found = []
            for name in STAGES:
                with forked.Pool(1) as process:
                    one = process.apply(measured, (Path(folder), arguments.judge, name))
                assert one["count"] == count, f"{one['count']} of {count} prompts are left after {name}"
                found.append(f"{one['cpu_seconds']:.1f} | {one['added_bytes'] / 2**20:,.0f}")
            on_disk = sum(path.stat().st_size for path in Path(folder, "store").rglob("*") if path.is_file())
            print(f"| {count:,} | {' | '.join(found)} | {on_disk / 2**20:,.0f} |", flush=True)


def write_prompts(path: Path, count: int) -> None:
    """Prompts of about 20 words, all different."""
    with path.open("w") as file:
        for number in range(count):
            text = f"Question {number}: what would you say about it, and is there anything that one should know before one begins?"
            file.write(json.dumps({"prompt": text}) + "\n")


def stages_of(folder: Path, judge: str) -> dict[str, Stage]:
    """The stages, by name, of the prompts in a folder."""
    settings = Prompts(source=Source(path=str(folder / "prompts.jsonl")), held_out=0.1)
    model = FunctionModel(kind="function", function="benchmarks.rankings:answer")
    by: Judge = (
        Pairwise(kind="pairwise", model="teacher")
        if judge == "pairwise"
        else Function(kind="function", function="benchmarks.rankings:grade")
    )
    models = {"teacher": model}
    one = stage("prompts", prompts.read, settings=settings)
    sampled = Candidates.model_validate({"per_prompt": 2, "from": ["teacher"]})
    two = stage("candidates", candidates.make, settings=sampled, authors=models, prompts=one, seed=0)
    judging = {"judge": by, "models": models if judge == "pairwise" else {}, "probes": AuditProbes(), "seed": 0}
    three = stage("verdicts", verdicts.make, **judging, prompts=one, candidates=two)
    data = {"prompts": one, "candidates": two, "verdicts": three}
    return {**data, "rankings": stage("rankings", rankings.make, settings=Rankings(), conversational=True, **data)}


def measured(folder: Path, judge: str, name: str) -> dict[str, float]:
    """Run one stage; those before it are finished. `count` is the number of prompts that it has results for."""
    made = stages_of(folder, judge)[name]
    CLEAR.write_text("5")  # resets the peak of resident memory
    resident, before = kilobytes("VmRSS"), time.process_time()
    counts = run_stage(made, Runtime(store=folder / "store")).counts
    seconds, added = time.process_time() - before, (kilobytes("VmHWM") - resident) * 1024
    count = counts["train"] + counts["held_out"] if name in ("prompts", "rankings") else counts.get("tasks", counts.get("prompts"))
    return {"cpu_seconds": seconds, "added_bytes": added, "count": int(count or 0)}


def kilobytes(name: str) -> int:
    """One of the figures about memory that Linux gives of this process."""
    return int(next(line for line in STATUS.read_text().splitlines() if line.startswith(name)).split()[1])


if __name__ == "__main__":
    main()
