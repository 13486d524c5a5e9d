"""The prompts that the student was weak at in the round before: some of a later round's, and seeds of new ones."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from aligndistill.config.elicitation import Step
from aligndistill.config.rounds import FreshPrompts
from aligndistill.preferences.difficulty import Difficulty, difficulties, drawn, hardest
from aligndistill.records import Prompt, Ranking, Record, content_hash
from aligndistill.stages.context import StageContext
from aligndistill.stages.files import PROMPTS, RANKINGS, TIES
from aligndistill.stages.prompts import require_enough, write_prompts
from aligndistill.store.jsonl import read_jsonl
from aligndistill.store.stage import StageResult


class WeakSeed(Record):
    """A prompt that was a seed, with the figures of the round before (see `preferences/difficulty.py`)."""

    id: str
    accept_rate: float
    difficulty: float


def part(
    context: StageContext,
    *,
    prompts: Path,
    settings: FreshPrompts,
    share: float,
    parts: int,
    earlier: Mapping[str, Path],
    rankings: Path,
    seed: int,
) -> StageResult:
    """The training prompts of a round, and all held-out ones.

    Of `per_round` prompts, round(share * per_round) are drawn from those of the round before, hard ones more often; fewer if
    fewer of them have a difficulty and may be used again. The others are those used least so far, in the order of a hash.

    Args:
        parts: how many rounds there are.
        earlier: the prompts of the rounds before.
        rankings: of the round before.

    Raises:
        DataError: there are too few prompts for all rounds.
    """
    used = Counter(one.id for folder in earlier.values() for one in read_jsonl(folder / PROMPTS, Prompt) if one.split == "train")
    train = [one.id for one in read_jsonl(prompts / PROMPTS, Prompt) if one.split == "train"]
    require_enough(settings, parts, len(train), weak=True)
    usable = {name for name in train if used[name] <= settings.repeats}
    # A dry run has no rankings yet; as many other prompts take the place of the weak ones.
    known = {} if context.is_dry else training_difficulties(rankings)
    hard = {name: one.difficulty for name, one in known.items() if name in usable}
    weak = drawn(hard, settings.weak_prompts(share), str(seed), str(len(earlier)))
    order = sorted(usable - weak, key=lambda name: (used[name], content_hash("round", name)))
    chosen = weak | set(order[: settings.per_round - len(weak)])
    found = read_jsonl(prompts / PROMPTS, Prompt)
    counts = write_prompts(context, (one for one in found if one.split == "held_out" or one.id in chosen))
    return StageResult(counts={**counts, "weak": len(weak)})


@dataclass(frozen=True)
class WeakSeeds:
    """The training prompts that models see in a step with `weak_seeds`, hardest first, with the difficulty of each."""

    prompts: Sequence[Prompt]
    difficulties: Mapping[str, Difficulty]

    def rows(self) -> Iterator[WeakSeed]:
        """Their ids, as they are written."""
        for one in self.prompts:
            if (found := self.difficulties.get(one.id)) is not None:
                yield WeakSeed(id=one.id, accept_rate=found.accept_rate, difficulty=found.difficulty)


def weak_seeds(prompts: Path, rankings: Path, step: Step, *seed: str, is_dry: bool) -> WeakSeeds:
    """The training prompts of a round that its start was weakest at, of those that have a difficulty.

    Prompts that models wrote for earlier rounds are none (LLM2LLM, arXiv:2403.15042), so that a writer's errors are not built on.

    Args:
        prompts: the run's, without those that were written for a round.
        rankings: of the round.
        step: says how many.
        seed: decides between equally hard ones.
        is_dry: where the round is not finished yet, any training prompts take the places of the weak ones.
    """
    count = step.weak_seeds
    assert count is not None, "only steps with `weak_seeds` have rankings"
    training = {one.id: one for one in read_jsonl(prompts / PROMPTS, Prompt) if one.split == "train"}
    if is_dry and not (rankings / RANKINGS).is_file():
        return WeakSeeds(list(training.values())[:count], {})
    known = {name: one for name, one in training_difficulties(rankings).items() if name in training}
    chosen = hardest({name: one.difficulty for name, one in known.items()}, count, *seed)
    return WeakSeeds([training[name] for name in chosen], known)


def training_difficulties(rankings: Path) -> dict[str, Difficulty]:
    """The difficulty of each training prompt that has one, tied answers among them."""
    every = chain(read_jsonl(rankings / RANKINGS, Ranking), read_jsonl(rankings / TIES, Ranking))
    return difficulties(one for one in every if one.split == "train")
