"""Candidates with log-probs, by this project."""

from pathlib import Path
from typing import Any

from aligndistill.models.load import ModelPointer, load_language_model
from aligndistill.models.sampling import Sampled, SampleRequest, sample
from benchmarks.probe import Memory, now
from benchmarks.worlds import read_rows


def candidates(world: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Sampled candidates for all prompts, some times over, and the log-probs of greedy answers for comparison.

    Settings: `k` per prompt (1), prompts `at_once` in a batch (all), `compared` prompts with a greedy answer (all), whether the
    step is `compiled` (no); a first pass, which is not timed, compiles it.
    """
    memory = Memory()
    pointer = ModelPointer(
        path=str(world / "policy"),
        layout="plain",
        dtype=settings.get("dtype", "float32"),
        attn_implementation=settings.get("attn_implementation"),
    )
    model = load_language_model(pointer)
    compiled = bool(settings.get("compiled"))
    prompts = [row["prompt"] for row in read_rows(world / "rows.jsonl")]

    def draw(count: int, k: int, temperature: float, seed: int) -> list[list[Sampled]]:
        requests = [SampleRequest(prompt, str(n), tuple(range(k))) for n, prompt in enumerate(prompts[:count])]
        at_once = settings.get("at_once", count)
        return [
            samples
            for start in range(0, count, at_once)
            for samples in sample(
                model,
                requests[start : start + at_once],
                temperature=temperature,
                max_new_tokens=settings["new_tokens"],
                seed=seed,
                compiled=compiled,
            )
        ]

    compared = settings.get("compared", len(prompts))
    greedy = [sum(one.logprobs) / len(one.ids) for samples in draw(compared, 1, 0.0, 0) for one in samples]  # also warms up
    if compiled:
        draw(len(prompts), settings.get("k", 1), 1.0, 0)
    seconds, tokens = [], []
    for repeat in range(settings["repeats"]):
        started = now()
        found = draw(len(prompts), settings.get("k", 1), 1.0, 1000 * settings["round"] + repeat)
        seconds.append(now() - started)
        tokens.append(sum(len(one.ids) for samples in found for one in samples))
    return {
        "seconds": seconds,
        "samples": len(prompts) * settings.get("k", 1),
        "added_bytes": memory.added_bytes(),
        "losses": greedy,
        "tokens": tokens,
    }
