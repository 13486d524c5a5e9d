"""Records through prompts, rankings and the store, by this project."""

import tempfile
import time
from pathlib import Path
from typing import Any

from aligndistill.config.data import Prompts, Source
from aligndistill.config.run import Rankings, Runtime
from aligndistill.runs.make import run_stage
from aligndistill.stages.prompts import make_prompts
from aligndistill.stages.rankings import make_ready_made_rankings
from aligndistill.store.stage import Stage
from benchmarks.probe import Memory


def through_the_store(world: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Make both stages of a new store, and find them again."""
    rankings_at = Source(path=str(world / "rankings.jsonl"), format="rankings")
    prompts_at = Source(path=str(world / "rankings.jsonl"), format="prompts", columns={"prompt": "prompt"})
    content = "the world's"
    prompts = Stage("prompts", make_prompts, (Prompts(source=prompts_at), content), {}, seed=0)
    ready_made = (Rankings(source=rankings_at), 0.1, False, content)
    rankings = Stage("rankings", make_ready_made_rankings, ready_made, {}, seed=0)
    memory = Memory(resident=True)
    with tempfile.TemporaryDirectory() as folder:
        runtime = Runtime(store=Path(folder))
        started = time.perf_counter()
        counts = [run_stage(stage, runtime).counts for stage in (prompts, rankings, prompts, rankings)]
        seconds = time.perf_counter() - started
    assert counts[0]["train"] + counts[0]["held_out"] == counts[1]["train"] + counts[1]["held_out"] == settings["records"]
    return {"seconds": [seconds], "samples": settings["records"], "added_bytes": memory.added_bytes()}
