"""prompts.jsonl of a later round: some of the prompts that the student was weak at in the round before, and others."""

from collections import Counter
from collections.abc import Mapping
from itertools import chain
from pathlib import Path

from aligndistill.config.rounds import FreshPrompts
from aligndistill.preferences.difficulty import Difficulty, difficulties, drawn
from aligndistill.records import Prompt, Ranking, content_hash
from aligndistill.stages.context import StageContext
from aligndistill.stages.files import PROMPTS, RANKINGS, TIES
from aligndistill.stages.prompts import write_prompts
from aligndistill.store.jsonl import read_jsonl
from aligndistill.store.stage import StageResult


def part(
    context: StageContext,
    *,
    prompts: Path,
    settings: FreshPrompts,
    share: float,
    earlier: Mapping[str, Path],
    rankings: Path,
    seed: int,
) -> StageResult:
    """The training prompts of a round, and all held-out ones.

    Of `per_round` prompts, round(share * per_round) are drawn from those of the round before, hard ones more often; fewer if
    fewer of them have a difficulty and may be used again. The others are those used least so far, in the order of a hash.

    Args:
        earlier: the prompts of the rounds before.
        rankings: of the round before.
    """
    used = Counter(one.id for folder in earlier.values() for one in read_jsonl(folder / PROMPTS, Prompt) if one.split == "train")
    found = read_jsonl(prompts / PROMPTS, Prompt)
    usable = {one.id for one in found if one.split == "train" and used[one.id] <= settings.repeats}
    # A dry run has no rankings yet; as many other prompts take the place of the weak ones.
    known = {} if context.is_dry else training_difficulties(rankings)
    hard = {name: one.difficulty for name, one in known.items() if name in usable}
    weak = drawn(hard, settings.weak_prompts(share), str(seed), str(len(earlier)))
    order = sorted(usable - weak, key=lambda name: (used[name], content_hash("round", name)))
    chosen = weak | set(order[: settings.per_round - len(weak)])
    found = read_jsonl(prompts / PROMPTS, Prompt)
    counts = write_prompts(context, (one for one in found if one.split == "held_out" or one.id in chosen))
    return StageResult(counts={**counts, "weak": len(weak)})


def training_difficulties(rankings: Path) -> dict[str, Difficulty]:
    """The difficulty of each training prompt that has one, tied answers among them."""
    every = chain(read_jsonl(rankings / RANKINGS, Ranking), read_jsonl(rankings / TIES, Ranking))
    return difficulties(one for one in every if one.split == "train")
