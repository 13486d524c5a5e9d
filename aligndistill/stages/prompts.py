"""prompts.jsonl: the different prompts of the configured source, each in its split."""

from aligndistill.config import Prompts
from aligndistill.prompts.loading import load_prompts
from aligndistill.stages.stage import Made, Work
from aligndistill.store.jsonl import write_jsonl


def make_prompts(work: Work, settings: Prompts, content: str) -> Made:
    """Read and split the prompts. `content` is the source's content hash, so that changed data is read again."""
    loaded = load_prompts(settings.source, settings.held_out)
    write_jsonl(work.folder / "prompts.jsonl", loaded.records)
    held_out = sum(prompt.split == "held_out" for prompt in loaded.records)
    return Made(
        counts={"rows": loaded.rows, "train": len(loaded.records) - held_out, "held_out": held_out},
        dropped=loaded.dropped,
    )
