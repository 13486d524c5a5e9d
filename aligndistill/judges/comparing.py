"""Which candidates to compare next: every pair, or fewer for nearly the same ranking.

A plan is a generator. Each step gives the pairs of one round, which are asked for together, those of all prompts at once; the next
step looks at what came of them. Candidates are numbered in an order that says nothing about them, so a plan depends neither on the
order in which they were written nor on other prompts.
"""

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from aligndistill.errors import ConfigError
from aligndistill.preferences.bradley_terry import Contest, Win, strengths

Pair = tuple[int, int]
Plan = Iterator[list[Pair]]

_RANDOM = re.compile(r"random\((\d+)\)")


@dataclass
class Standing:
    """What is known of one task's candidates so far.

    Attributes:
        shown: P(first is better) by (first, second) as they were shown; None for a reply that could not be read.
        first_advantage: what being shown first is worth with this judge, logits, as far as that is known.
    """

    n_candidates: int
    shown: dict[Pair, float | None] = field(default_factory=dict)
    first_advantage: float = 0.0

    def met(self, one: int, other: int) -> int:
        """In how many orders the two were compared."""
        return ((one, other) in self.shown) + ((other, one) in self.shown)

    def probability(self, one: int, other: int) -> float | None:
        """P(one is better than the other): the mean of both orders, or one of them without its advantage."""
        forwards, backwards = self.shown.get((one, other)), self.shown.get((other, one))
        if forwards is not None and backwards is not None:
            return (forwards + 1 - backwards) / 2
        if forwards is not None:
            return _shifted(forwards, -self.first_advantage)
        return None if backwards is None else 1 - _shifted(backwards, -self.first_advantage)

    @property
    def contest(self) -> Contest:
        """The comparisons that could be read."""
        wins = [Win(first, second, p) for (first, second), p in self.shown.items() if p is not None]
        return Contest(self.n_candidates, wins)

    def strengths(self) -> list[float]:
        """Bradley-Terry strengths."""
        return strengths(self.n_candidates, self.contest.wins, first_advantage=self.first_advantage)


def plan(comparisons: str, standing: Standing) -> Plan:
    """The rounds of a way to compare: `all`, `sort`, `swiss` or `random(n)`.

    Raises:
        ConfigError: there is no such way.
    """
    chosen = _RANDOM.fullmatch(comparisons)
    match comparisons:
        case "all":
            return iter([list(itertools.combinations(range(standing.n_candidates), 2))])
        case "sort":
            return _sorting(standing)
        case "swiss":
            return swiss(standing, swiss_rounds(standing.n_candidates))
        case _ if chosen is not None:
            return iter([random_pairs(standing.n_candidates, int(chosen[1]))])
    raise ConfigError(f"judge.comparisons is '{comparisons}': it may be all, sort, swiss or random(n), as in random(12).")


def random_pairs(n_candidates: int, n_pairs: int) -> list[Pair]:
    """So many different pairs, in which every candidate takes part about equally often.

    Neighbours in a circle, then neighbours but one, and so on: n or more pairs hang together.
    """
    circles = ((one, (one + step) % n_candidates) for step in range(1, n_candidates) for one in range(n_candidates))
    different = {frozenset(pair): pair for pair in reversed(list(circles))}
    return list(reversed(different.values()))[:n_pairs]


def swiss_rounds(n_candidates: int) -> int:
    """The most rounds: the ceiling of log2(n), as in a tournament of this kind, and one more to settle what is close."""
    return math.ceil(math.log2(n_candidates)) + 1 if n_candidates > 1 else 0


def swiss(standing: Standing, rounds: int) -> Plan:
    """Rounds in which each candidate meets one whose strength is as close as can be had.

    Two that have met meet once more, in the other order. It is over when the order is settled: all neighbours in it have met, and
    each won against the next.
    """
    for _ in range(rounds):
        strength = standing.strengths()
        if is_settled(standing, strength):
            return
        gaps = sorted(
            (abs(strength[one] - strength[other]), standing.met(one, other), one, other)
            for one, other in itertools.combinations(range(standing.n_candidates), 2)
            if standing.met(one, other) < 2
        )
        busy: set[int] = set()
        pairs = []
        for _gap, _met, one, other in gaps:
            if one not in busy and other not in busy:
                busy |= {one, other}
                pairs.append((one, other))
        if not pairs:
            return
        yield pairs


def is_settled(standing: Standing, strength: Sequence[float]) -> bool:
    """Whether all neighbours in the order by strength have met, and no verdict between two of them says otherwise."""
    order = sorted(range(standing.n_candidates), key=lambda one: -strength[one])
    wins = (standing.probability(better, worse) for better, worse in itertools.pairwise(order))
    return all(p is not None and p > 0.5 for p in wins)


def _shifted(probability: float, logits: float) -> float:
    """The probability whose logit is so much larger."""
    odds = math.exp(logits) * probability
    return odds / (odds + 1 - probability)


def _sorting(standing: Standing) -> Plan:
    """Merge sort, in which all merges that can go on do so in the same round."""
    yield from _merge_sort(standing, list(range(standing.n_candidates)), [])


def _merge_sort(standing: Standing, items: list[int], result: list[int]) -> Plan:
    """Sort items into `result`, best first; of two that no reply tells apart the earlier one goes first."""
    if len(items) < 2:
        result += items
        return
    left: list[int] = []
    right: list[int] = []
    halves = [_merge_sort(standing, items[: len(items) // 2], left), _merge_sort(standing, items[len(items) // 2 :], right)]
    for rounds in itertools.zip_longest(*halves, fillvalue=[]):
        yield [pair for pairs in rounds for pair in pairs]
    while left and right:
        if not standing.met(left[0], right[0]):
            yield [(left[0], right[0])]
        probability = standing.probability(left[0], right[0])
        result.append((left if probability is None or probability >= 0.5 else right).pop(0))
    result += left + right
