"""A judge's agreement with itself, and biases of its verdicts. Shares are stored as counts, so that they can be added."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from aligndistill.records import Comparison, Ranking, Verdict, is_unparsed


@dataclass(frozen=True)
class Share:
    """A share: `count` of `total`."""

    count: int
    total: int

    def __add__(self, other: "Share") -> "Share":
        return Share(self.count + other.count, self.total + other.total)

    @property
    def value(self) -> float | None:
        """count / total; None if `total` is 0."""
        return self.count / self.total if self.total else None


@dataclass(frozen=True)
class OrderBias:
    """Order bias, measured on pairs that were asked in both orders.

    Attributes:
        flips: pairs whose winner changed with the order, of the pairs parsed in both orders. A tie in one order is not a flip.
        first_wins: verdicts for the answer shown first, of the decided verdicts on those pairs; 0.5 without position bias,
            because each answer is shown first once.
    """

    flips: Share
    first_wins: Share

    def __add__(self, other: "OrderBias") -> "OrderBias":
        return OrderBias(self.flips + other.flips, self.first_wins + other.first_wins)


def order_bias(comparisons: Sequence[Comparison]) -> OrderBias:
    """Order flips and first-position wins, over pairs with parsed replies in both orders."""
    outcome_of = {
        (comparison.prompt_id, comparison.judge, comparison.first, comparison.second): comparison.outcome
        for comparison in comparisons
        if comparison.outcome != "unparsed"
    }
    flips = pairs = first_wins = decided = 0
    for (prompt, judge, first, second), outcome in outcome_of.items():
        swapped = outcome_of.get((prompt, judge, second, first))
        if swapped is None:
            continue
        first_wins += outcome == "first"
        decided += outcome != "tie"
        if first < second:  # each pair occurs twice
            pairs += 1
            flips += outcome == swapped != "tie"
    return OrderBias(flips=Share(flips, pairs), first_wins=Share(first_wins, decided))


def unparsed(verdicts: Iterable[Verdict]) -> Share:
    """The share of verdicts that could not be parsed."""
    count = total = 0
    for verdict in verdicts:
        total += 1
        count += is_unparsed(verdict)
    return Share(count, total)


def longer_preferred_rate(rankings: Iterable[Ranking]) -> Share:
    """Strictly ordered pairs whose better answer is the longer one, in characters, of those whose lengths differ."""
    count = total = 0
    for ranking in rankings:
        for better, worse in combinations(ranking.responses, 2):
            if better.score > worse.score and len(better.text) != len(worse.text):
                total += 1
                count += len(better.text) > len(worse.text)
    return Share(count, total)
