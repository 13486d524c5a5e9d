"""Records through prompts, rankings and the store, by this project."""

import tempfile
import time
from pathlib import Path
from typing import Any

from aligndistill.config.data import Prompts, Source
from aligndistill.config.run import Rankings, Runtime
from aligndistill.runs.make import run_stage
from aligndistill.stages import prompts as prompts_stage
from aligndistill.stages import rankings as rankings_stage
from aligndistill.store.stage import stage
from benchmarks.probe import Memory


def through_the_store(world: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Make both stages of a new store, and find them again."""
    rankings_at = Source(path=str(world / "rankings.jsonl"), format="rankings")
    prompts_at = Source(path=str(world / "rankings.jsonl"), format="prompts", columns={"prompt": "prompt"})
    prompts = stage("prompts", prompts_stage.read, settings=Prompts(source=prompts_at))
    settings_of = Rankings(source=rankings_at)
    rankings = stage("rankings", rankings_stage.read, settings=settings_of, conversational=False)
    memory = Memory(resident=True)
    with tempfile.TemporaryDirectory() as folder:
        runtime = Runtime(store=Path(folder))
        started = time.perf_counter()
        counts = [run_stage(one, runtime).counts for one in (prompts, rankings, prompts, rankings)]
        seconds = time.perf_counter() - started
    assert counts[0]["train"] + counts[0]["held_out"] == counts[1]["train"] + counts[1]["held_out"] == settings["records"]
    return {"seconds": [seconds], "samples": settings["records"], "added_bytes": memory.added_bytes()}
