"""prompts.jsonl: the different prompts of the configured source, each in its split."""

from collections.abc import Iterator

from aligndistill.config.data import Prompts
from aligndistill.data.loading import load_prompts
from aligndistill.records import Prompt
from aligndistill.stages.context import Work
from aligndistill.store.jsonl import write_jsonl
from aligndistill.store.stage import Made


def make_prompts(work: Work, settings: Prompts, content: str) -> Made:
    """Read and split the prompts. `content` is the source's content hash, so that changed data is read again."""
    prompts = load_prompts(settings.source, settings.held_out)
    held_out = 0

    def counted() -> Iterator[Prompt]:
        nonlocal held_out
        for prompt in prompts:
            held_out += prompt.split == "held_out"
            yield prompt

    written = write_jsonl(work.folder / "prompts.jsonl", counted())
    return Made(
        counts={"rows": prompts.rows, "train": written - held_out, "held_out": held_out},
        dropped=dict(prompts.dropped),
    )
