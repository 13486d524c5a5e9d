"""Chooses which candidates to compare next: every pair, or fewer for nearly the same ranking.

A plan is a generator. Each step yields the pairs of one round, which are sent together with those of all other prompts; the next
step uses the results. The numbering of candidates is independent of their content, so a plan depends neither on the order in
which they were sampled nor on other prompts.
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
"""Logits between two candidates that were not compared: the stronger one wins with probability 0.63."""

STEP = 0.35
"""Logits subtracted from `SETTLED` for each comparison of the two. Both tuned with `benchmarks/judging.py` at k = 8."""

SWISS_ROUNDS = 3
"""The most rounds per doubling of the number of candidates, plus one round; most tasks are settled earlier."""

_RANDOM = re.compile(r"random\((\d+)\)")


@dataclass
class PairHistory:
    """The comparisons of one task's candidates so far.

    Attributes:
        shown: P(first is better) by (first, second) in the order shown; None for a reply that could not be parsed.
    """

    n_candidates: int
    shown: dict[Pair, float | None] = field(default_factory=dict)

    def met(self, one: int, other: int) -> int:
        """In how many orders the two were compared."""
        return ((one, other) in self.shown) + ((other, one) in self.shown)

    def probability(self, one: int, other: int) -> float | None:
        """P(one is better than the other): the mean over the orders with a parsed reply; None without any."""
        forwards, backwards = self.shown.get((one, other)), self.shown.get((other, one))
        read = [p for p in (forwards, None if backwards is None else 1 - backwards) if p is not None]
        return fmean(read) if read else None

    def strengths(self) -> list[float]:
        """Bradley-Terry strengths."""
        from aligndistill.preferences.strengths import (  # imported late: `plan` imports this module, and numpy is slow
            Win,
            strengths,
        )

        return strengths(self.n_candidates, [Win(*pair, p) for pair, p in self.shown.items() if p is not None])

    def groups(self) -> list[int]:
        """The group of each candidate: its connected component in the graph of comparisons. Strengths of different groups are
        not comparable."""
        group = list(range(self.n_candidates))
        for one, other in self.shown:
            old, new = group[one], group[other]
            group = [new if of_one == old else of_one for of_one in group]
        return group


def choose_pairs(comparisons: str, history: PairHistory) -> Plan:
    """The plan for `all`, `sort`, `swiss` or `random(n)`.

    Raises:
        ConfigError: `comparisons` is none of these.
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
    raise ConfigError(f"judge.comparisons is '{comparisons}': it must be all, sort, swiss or random(n), such as random(12).")


def random_pairs(n_candidates: int, n_pairs: int) -> list[Pair]:
    """`n_pairs` different pairs, in which every candidate occurs about equally often.

    Neighbours on a circle, then those two apart, and so on: `n_candidates` or more pairs are connected.
    """
    circle = ((one, (one + step) % n_candidates) for step in range(1, n_candidates) for one in range(n_candidates))
    different = {frozenset(pair): pair for pair in reversed(list(circle))}
    return list(reversed(different.values()))[:n_pairs]


def swiss(history: PairHistory) -> Plan:
    """Rounds in which each candidate is compared with one of similar strength, until the order is settled.

    It is settled when the comparisons connect all candidates, all neighbours in the order were compared, and every two differ by
    `SETTLED` in strength, by `SETTLED - STEP` if they were compared, or were compared in both orders. So most comparisons are
    between close candidates, whose order can still change.
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
    """Merge sort, in which all possible merges advance in the same round."""
    yield from _merge_sort(history, list(range(history.n_candidates)), [])


def _merge_sort(history: PairHistory, items: list[int], result: list[int]) -> Plan:
    """Sort items into `result`, best first; two that no reply distinguishes keep their order."""
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
