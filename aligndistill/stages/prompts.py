"""prompts.jsonl: the distinct prompts of the run, each in its split."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from aligndistill.config.data import Prompts
from aligndistill.data.loading import load_prompts
from aligndistill.records import Prompt, Ranking
from aligndistill.stages.context import StageContext
from aligndistill.stages.files import PROMPTS, RANKINGS
from aligndistill.store.jsonl import read_jsonl, write_jsonl
from aligndistill.store.stage import StageResult


def read(context: StageContext, *, settings: Prompts) -> StageResult:
    """Read and split the prompts of the configured source."""
    prompts = load_prompts(settings.source, settings.held_out)
    counts = _write(context, prompts)
    return StageResult(counts={"rows": prompts.rows, **counts}, dropped=dict(prompts.dropped))


def of_rankings(context: StageContext, *, rankings: Path) -> StageResult:
    """The prompts of ready-made rankings, each once."""
    found = {
        one.prompt_id: Prompt(id=one.prompt_id, messages=one.messages, source="rankings", split=one.split)
        for one in read_jsonl(rankings / RANKINGS, Ranking)
    }
    return StageResult(counts=_write(context, found.values()))


def _write(context: StageContext, prompts: Iterable[Prompt]) -> dict[str, int]:
    held_out = 0

    def counted() -> Iterator[Prompt]:
        nonlocal held_out
        for prompt in prompts:
            held_out += prompt.split == "held_out"
            yield prompt

    written = write_jsonl(context.folder / PROMPTS, counted())
    return {"train": written - held_out, "held_out": held_out}
