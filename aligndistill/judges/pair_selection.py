"""Which candidates to compare next: every pair, or fewer for nearly the same ranking.

A plan is a generator. Each step gives the pairs of one round, which are asked for together, those of all prompts at once; the next
step looks at what came of them. Candidates are numbered in an order that says nothing about them, so a plan depends neither on the
order in which they were written nor on other prompts.
"""

import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import fmean

from aligndistill.errors import ConfigError

Pair = tuple[int, int]
Plan = Iterator[list[Pair]]

SETTLED = 0.55
"""Logits between two that have not met: the stronger one wins with 0.63."""

STEP = 0.35
"""Logits by which that falls when they have met. Both are tuned by `benchmarks/judging.py` at k = 8."""

SWISS_ROUNDS = 3
"""The most rounds, in doublings of the candidates, and one more; most tasks are settled before."""

_RANDOM = re.compile(r"random\((\d+)\)")


@dataclass
class PairHistory:
    """What is known of one task's candidates so far.

    Attributes:
        shown: P(first is better) by (first, second) as they were shown; None for a reply that could not be read.
    """

    n_candidates: int
    shown: dict[Pair, float | None] = field(default_factory=dict)

    def met(self, one: int, other: int) -> int:
        """In how many orders the two were compared."""
        return ((one, other) in self.shown) + ((other, one) in self.shown)

    def probability(self, one: int, other: int) -> float | None:
        """P(one is better than the other): the mean of the orders that could be read."""
        forwards, backwards = self.shown.get((one, other)), self.shown.get((other, one))
        read = [p for p in (forwards, None if backwards is None else 1 - backwards) if p is not None]
        return fmean(read) if read else None

    def strengths(self) -> list[float]:
        """Bradley-Terry strengths."""
        from aligndistill.preferences.strengths import Win, strengths  # only here: a plan imports this file, too, and numpy is slow

        return strengths(self.n_candidates, [Win(*pair, p) for pair, p in self.shown.items() if p is not None])

    def groups(self) -> list[int]:
        """The group that each belongs to, those that hang together by comparisons: strengths say nothing across groups."""
        group = list(range(self.n_candidates))
        for one, other in self.shown:
            gone, kept = group[one], group[other]
            group = [kept if of_one == gone else of_one for of_one in group]
        return group


def choose_pairs(comparisons: str, history: PairHistory) -> Plan:
    """The rounds of a way to compare: `all`, `sort`, `swiss` or `random(n)`.

    Raises:
        ConfigError: there is no such way.
    """
    chosen = _RANDOM.fullmatch(comparisons)
    match comparisons:
        case "all":
            return iter([list(itertools.combinations(range(history.n_candidates), 2))])
        case "sort":
            return _sorting(history)
        case "swiss":
            return swiss(history)
        case _ if chosen is not None:
            return iter([random_pairs(history.n_candidates, int(chosen[1]))])
    raise ConfigError(f"judge.comparisons is '{comparisons}': it may be all, sort, swiss or random(n), as in random(12).")


def random_pairs(n_candidates: int, n_pairs: int) -> list[Pair]:
    """So many different pairs, in which every candidate takes part about equally often.

    Neighbours in a circle, then neighbours but one, and so on: n or more pairs hang together.
    """
    intransitive = ((one, (one + step) % n_candidates) for step in range(1, n_candidates) for one in range(n_candidates))
    different = {frozenset(pair): pair for pair in reversed(list(intransitive))}
    return list(reversed(different.values()))[:n_pairs]


def swiss(history: PairHistory) -> Plan:
    """Rounds in which each candidate meets one whose strength is as close as can be had, until the order is settled.

    It is settled when all candidates hang together by comparisons, all neighbours in the order have met, and every two differ by
    `SETTLED` in strength, by `SETTLED - STEP` if they have met, or have met in both orders. So most comparisons go to candidates
    that are close, where the order can still change.
    """
    for _ in range(SWISS_ROUNDS * math.ceil(math.log2(max(2, history.n_candidates))) + 1):
        strength = history.strengths()
        group = history.groups()
        order = sorted(range(history.n_candidates), key=lambda one: strength[one])
        unmet = {frozenset(pair) for pair in itertools.pairwise(order) if not history.met(*pair)}
        doubt = sorted(
            (abs(strength[one] - strength[other]) + STEP * history.met(one, other), one, other)
            for one, other in itertools.combinations(range(history.n_candidates), 2)
            if history.met(one, other) < 2
        )
        busy: set[int] = set()
        pairs = []
        for gap, one, other in doubt:
            needed = gap < SETTLED or group[one] != group[other] or frozenset((one, other)) in unmet
            if needed and one not in busy and other not in busy:
                busy |= {one, other}
                pairs.append((one, other))
        if not pairs:
            return
        yield pairs


def _sorting(history: PairHistory) -> Plan:
    """Merge sort, in which all merges that can go on do so in the same round."""
    yield from _merge_sort(history, list(range(history.n_candidates)), [])


def _merge_sort(history: PairHistory, items: list[int], result: list[int]) -> Plan:
    """Sort items into `result`, best first; of two that no reply tells apart the earlier one goes first."""
    if len(items) < 2:
        result += items
        return
    left: list[int] = []
    right: list[int] = []
    halves = [_merge_sort(history, items[: len(items) // 2], left), _merge_sort(history, items[len(items) // 2 :], right)]
    for rounds in itertools.zip_longest(*halves, fillvalue=[]):
        yield [pair for pairs in rounds for pair in pairs]
    while left and right:
        if not history.met(left[0], right[0]):
            yield [(left[0], right[0])]
        probability = history.probability(left[0], right[0])
        result.append((left if probability is None or probability >= 0.5 else right).pop(0))
    result += left + right
