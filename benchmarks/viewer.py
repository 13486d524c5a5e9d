"""The viewer on 100,000 generated answers: seconds to index them, to make a page, and the memory of the process.

python -m benchmarks.viewer [ANSWERS]
"""

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from aligndistill.commands.view.index import index_of
from aligndistill.commands.view.links import Links
from aligndistill.commands.view.pages.judge import judge_page
from aligndistill.commands.view.pages.runs import run_page
from aligndistill.commands.view.pages.sample import sample_page
from aligndistill.commands.view.pages.samples import samples_page
from aligndistill.commands.view.run_folder import RunFolder
from aligndistill.commands.view.sample_query import SampleQuery
from aligndistill.commands.view.site import Site
from aligndistill.records import Message, candidate_id, prompt_id

MODELS = ("start", "teacher", "dpo", "ppo")
WORDS_PER_ANSWER = 90  # near 1 kB with the prompt and the figures, as measured on real runs
REPEATS = 5


def write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    (path.parent / "manifest.json").write_text(json.dumps({"counts": {}, "wall_seconds": 1.0, "files": {}}))


def generate(base: Path, answers: int) -> Path:
    """Write a run with so many answers, half of their models judged against the start in both orders; returns its folder."""
    draw = random.Random(0)
    words = [f"word{number}" for number in range(2000)]
    prompts, scored, verdicts = [], {name: [] for name in MODELS}, []
    written: dict[str, list[dict[str, Any]]] = {name: [] for name in MODELS}
    for number in range(answers // len(MODELS)):
        messages = [{"role": "user", "content": f"question {number} {' '.join(draw.choices(words, k=20))}"}]
        identity = prompt_id([Message.model_validate(one) for one in messages])
        prompts.append({"id": identity, "messages": messages, "source": f"data.jsonl row {number}", "split": "held_out"})
        keys = {}
        for name in MODELS:
            text = " ".join(draw.choices(words, k=WORDS_PER_ANSWER))
            keys[name] = candidate_id(identity, "answer", text)
            figures = {"length_tokens": draw.randint(20, 400), "truth": draw.random(), "reward": draw.gauss(0, 1)}
            figures["win"] = draw.random()
            scored[name].append({"prompt_id": identity, "messages": messages, "author": name, "text": text, **figures})
            written[name].append({"prompt_id": identity, "finish": "stop", "kl_nats": draw.random()})
        for name in MODELS[2:]:
            for first, second in ((keys[name], keys["start"]), (keys["start"], keys[name])):
                p = draw.random()
                outcome = {"outcome": "first" if p > 0.5 else "second", "probability_first": p, "judge": "pairwise", "reply": "A"}
                verdicts.append({"kind": "comparison", "prompt_id": identity, "first": first, "second": second, **outcome})
    files = {
        "prompts/prompts.jsonl": prompts,
        "evaluation/scored.jsonl": [row for name in MODELS for row in scored[name]],
        "evaluation/verdicts.jsonl": verdicts,
        **{f"answers-{name}/answers.jsonl": rows for name, rows in written.items()},
    }
    for name, rows in files.items():
        write(base / "store" / name, rows)
    run = base / "runs" / "generated"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("name: generated\n")
    folders = {name.partition("/")[0]: f"store/{name.partition('/')[0]}" for name in files}
    (run / "artifacts.json").write_text(json.dumps(folders))
    return run


def measured(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the first call and the median of further ones."""
    seconds = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begun)
    return seconds[0], sorted(seconds[1:])[len(seconds[1:]) // 2]


def main(folder: Path) -> None:
    """Measure a run that was generated before: in a process of its own, whose memory is the viewer's alone."""
    run = RunFolder(folder, "generated")
    site = Site({"generated": run})
    begun, begun_cpu = time.perf_counter(), time.process_time()
    path = index_of(run)
    seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - begun_cpu
    rows = sum(1 for _ in (folder.parents[1] / "store/evaluation/scored.jsonl").open("rb"))
    print(f"index of {rows:,} answers: {seconds:.2f} s ({cpu_seconds:.2f} s of CPU), {path.stat().st_size / 2**20:.1f} MiB")
    with site.index(run) as index:
        prompt = index.prompt_id(index.numbers(SampleQuery(), 1)[0])
    pages: dict[str, Callable[[], Any]] = {
        "run": lambda: run_page(site, run),
        "samples": lambda: samples_page(site, run, {}),
        "samples, worse than start, sorted": lambda: samples_page(site, run, {"f": "worse", "m": "ppo", "sort": "-delta"}),
        "samples, page 400": lambda: samples_page(site, run, {"page": "400"}),
        "samples with a text": lambda: samples_page(site, run, {"q": "word17 word"}),
        "a sample of a filter": lambda: sample_page(site, run, prompt, {"f": "worse", "m": "ppo", "sort": "-delta"}),
        "judge": lambda: judge_page(site, run),
    }
    for name, page in pages.items():
        first, again = measured(lambda page=page: site.render(page(), Links()))  # type: ignore[misc]
        print(f"{name}: {1000 * first:.0f} ms at first, then {1000 * again:.0f} ms")
    print(f"memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        main(Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as work:
            made = generate(Path(work), int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
            os.environ["XDG_CACHE_HOME"] = work
            subprocess.run([sys.executable, "-m", "benchmarks.viewer", "measure", str(made)], check=True)
