"""Candidates with log-probs, by this project."""

import time
from pathlib import Path
from typing import Any

from aligndistill.models.load import ModelPointer, load_language_model
from aligndistill.models.sampling import Sampled, SampleRequest, sample
from benchmarks.probe import Memory
from benchmarks.worlds import read_rows


def candidates(world: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Some batches of sampled candidates, and the log-probs of greedy answers for comparison."""
    memory = Memory()
    model = load_language_model(ModelPointer(path=str(world / "policy"), layout="plain", dtype="float32"))
    prompts = [row["prompt"] for row in read_rows(world / "rows.jsonl")]

    def draw(k: int, temperature: float, seed: int) -> list[list[Sampled]]:
        requests = [SampleRequest(prompt, str(n), tuple(range(k))) for n, prompt in enumerate(prompts)]
        return sample(model, requests, temperature=temperature, max_new_tokens=settings["new_tokens"], seed=seed)

    greedy = [sum(one.logprobs) / len(one.ids) for samples in draw(1, 0.0, 0) for one in samples]  # also warms up
    seconds, tokens = [], []
    for repeat in range(settings["repeats"]):
        started = time.perf_counter()
        found = draw(settings["k"], 1.0, 1000 * settings["round"] + repeat)
        seconds.append(time.perf_counter() - started)
        tokens.append(sum(len(one.ids) for samples in found for one in samples))
    return {
        "seconds": seconds,
        "samples": len(prompts) * settings["k"],
        "added_bytes": memory.added_bytes(),
        "losses": greedy,
        "tokens": tokens,
    }
