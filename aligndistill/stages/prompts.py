"""prompts.jsonl: the distinct prompts of the run, each in its split."""

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from aligndistill.config.data import Prompts
from aligndistill.config.rounds import FreshPrompts
from aligndistill.data.loading import load_prompts
from aligndistill.errors import DataError
from aligndistill.records import Prompt, Ranking, content_hash
from aligndistill.stages.context import StageContext
from aligndistill.stages.files import PROMPTS, RANKINGS
from aligndistill.store.jsonl import read_jsonl, write_jsonl
from aligndistill.store.stage import StageResult


def read(context: StageContext, *, settings: Prompts) -> StageResult:
    """Read and split the prompts of the configured source."""
    prompts = load_prompts(settings.source, settings.held_out)
    counts = write_prompts(context, prompts)
    return StageResult(counts={"rows": prompts.rows, **counts}, dropped=dict(prompts.dropped))


def of_rankings(context: StageContext, *, rankings: Path) -> StageResult:
    """The prompts of ready-made rankings, each once."""
    found = {
        one.prompt_id: Prompt(id=one.prompt_id, messages=one.messages, source="rankings", split=one.split)
        for one in read_jsonl(rankings / RANKINGS, Ranking)
    }
    return StageResult(counts=write_prompts(context, found.values()))


def part(context: StageContext, *, prompts: Path, part: int, parts: int) -> StageResult:
    """One of several equal parts of the training prompts, by hash, and all held-out prompts.

    Raises:
        DataError: a part has no training prompts.
    """

    def part_with(prompt: Prompt) -> int:
        return int(content_hash("round", prompt.id), 16) % parts

    found = read_jsonl(prompts / PROMPTS, Prompt)
    if empty := set(range(parts)) - {part_with(one) for one in found if one.split == "train"}:
        text = (
            f"prompts: fresh splits the training prompts into {parts} parts, one for each round, and {len(empty)} of them are empty"
        )
        raise DataError(f"rounds.{text}. Use more prompts, fewer rounds, or prompts: same.")
    found = read_jsonl(prompts / PROMPTS, Prompt)
    return StageResult(counts=write_prompts(context, (one for one in found if one.split == "held_out" or part_with(one) == part)))


def sized_part(
    context: StageContext, *, prompts: Path, per_round: int, part: int, parts: int, repeats: int, weak: bool = False
) -> StageResult:
    """The next training prompts in the order of a hash, from the first again after the last, and all held-out prompts.

    A part is the same however many others there are, so that more rounds leave those before as they are.

    Args:
        per_round: the size of each part.
        part: which one, from 0.
        parts, repeats: there must be enough prompts for so many parts, each of them used again so often.
        weak: later parts are drawn by `weak_prompts.part`, which may need more prompts.

    Raises:
        DataError: there are too few for all parts.
    """
    order = sorted((content_hash("round", one.id), one.id) for one in read_jsonl(prompts / PROMPTS, Prompt) if one.split == "train")
    require_enough(FreshPrompts(per_round=per_round, repeats=repeats), parts, len(order), weak=weak)
    first = part * per_round
    chosen = {order[place % len(order)][1] for place in range(first, first + per_round)}
    found = read_jsonl(prompts / PROMPTS, Prompt)
    return StageResult(counts=write_prompts(context, (one for one in found if one.split == "held_out" or one.id in chosen)))


def require_enough(settings: FreshPrompts, parts: int, prompts: int, *, weak: bool) -> None:
    """Raise a `DataError` if so many training prompts are too few for all parts."""
    if shortage := settings.shortage(parts, prompts, weak=weak):
        raise DataError(f"rounds.prompts: {shortage}.")


def with_new(context: StageContext, *, prompts: Path, known: Path, written: Path) -> StageResult:
    """The prompts of a round, followed by those that models wrote for it: what `written` has and `known` has not."""
    before = {one.id for one in read_jsonl(known / PROMPTS, Prompt)}
    new = (one for one in read_jsonl(written / PROMPTS, Prompt) if one.id not in before)
    return StageResult(counts=write_prompts(context, chain(read_jsonl(prompts / PROMPTS, Prompt), new)))


def write_prompts(context: StageContext, prompts: Iterable[Prompt]) -> dict[str, int]:
    """Write prompts.jsonl, and count the prompts of each split."""
    held_out = 0

    def counted() -> Iterator[Prompt]:
        nonlocal held_out
        for prompt in prompts:
            held_out += prompt.split == "held_out"
            yield prompt

    written = write_jsonl(context.folder / PROMPTS, counted())
    return {"train": written - held_out, "held_out": held_out}
