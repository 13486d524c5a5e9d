"""Bradley-Terry strengths from soft comparisons: one number per item, on the logit scale.

The model is P(i beats j) = sigmoid(strength_i - strength_j) (Bradley and Terry 1952). A comparison may be sure (0 or 1), a tie
(0.5) or anything between, as a judge's probability is. The item shown first may have an advantage, as a team at home has:
P(i beats j | i first) = sigmoid(strength_i - strength_j + advantage) (Davidson and Beaver 1977).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PRIOR = 0.1
"""Weight of the pseudo-tie that each item has with the average opponent; a tenth of one comparison."""

TOLERANCE = 1e-10
"""Newton's method stops when no entry of the gradient is larger than this times the number of comparisons."""

LARGEST_STEP = 4.0
"""Logits by which one step changes a strength: where probabilities are all but 0 and 1 the cost has no curvature to go by."""

MAX_STEPS = 200
"""A few are enough; only a prior near 0 with undefeated items needs tens."""

ADVANTAGE_TOLERANCE = 1e-3
LARGEST_ADVANTAGE = 8.0
"""Logits. An advantage is shared by all prompts and not worth more digits; 8 is first in 2,999 of 3,000."""


class Win(NamedTuple):
    """`first` was shown first, compared with `second`, and found better with this probability. Items are numbered from 0."""

    first: int
    second: int
    probability: float


@dataclass(frozen=True)
class Match:
    """Some items and their comparisons with each other."""

    n_items: int
    wins: Sequence[Win]


@dataclass(frozen=True)
class _Table:
    """Comparisons, row against column, in parts of a comparison.

    Attributes:
        asked: how often row was shown before column.
        won: how often it was better then.
        advantage: what being shown first is worth, logits.
        prior: weight of the pseudo-ties.
    """

    asked: NDArray[np.float64]
    won: NDArray[np.float64]
    advantage: NDArray[np.float64]
    prior: float

    def expected(self, strength: NDArray[np.float64]) -> NDArray[np.float64]:
        """P(row beats column | row first)."""
        return _sigmoid(self._gap(strength))

    def cost(self, strength: NDArray[np.float64]) -> float:
        """Negative log-likelihood, nats, pseudo-ties included."""
        gap = self._gap(strength)
        ties = np.logaddexp(0, strength) + np.logaddexp(0, -strength)
        compared = self.won * np.logaddexp(0, -gap) + (self.asked - self.won) * np.logaddexp(0, gap)
        return float(compared.sum() + self.prior / 2 * ties.sum())

    def gradient(self, strength: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of the cost."""
        surplus = self.asked * self.expected(strength) - self.won
        return np.asarray(surplus.sum(axis=1) - surplus.sum(axis=0) + self.prior * (_sigmoid(strength) - 0.5))

    def hessian(self, strength: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of the cost; positive definite because of the prior."""
        curvature = self.asked * _slope(self._gap(strength))
        curvature = curvature + curvature.T
        return np.asarray(np.diag(curvature.sum(axis=1) + self.prior * _slope(strength)) - curvature)

    def _gap(self, strength: NDArray[np.float64]) -> NDArray[np.float64]:
        return strength[:, None] - strength[None, :] + self.advantage


def strengths(n_items: int, wins: Sequence[Win], prior: float = PRIOR, position_logit: float = 0.0) -> list[float]:
    """The most likely strengths, with mean 0.

    Each item also ties once, with weight `prior`, with a virtual opponent of strength 0. That keeps an undefeated item finite
    and joins items that were never compared, and it draws all strengths a little together. As `prior` goes to 0, two items
    differ by exactly the logit of their mean probability.

    Args:
        n_items: how many items there are.
        wins: comparisons; the same two items may occur often, in either order.
        prior: weight of the pseudo-tie, in comparisons; positive.
        first_advantage: what being shown first is worth, logits. It is taken off two items that were compared in one order only;
            compared in both, they have each had it, and a disagreement between the orders is doubt about the two.
    """
    asked, won = _counts(n_items, wins)
    table = _Table(asked, won, position_logit * (asked.T == 0), prior)
    assert prior > 0, "without a prior an undefeated item has no finite strength"
    return [float(value) for value in _fitted(table, np.zeros(n_items))]


def position_logit(matches: Sequence[Match], prior: float = PRIOR) -> float:
    """What being shown first was worth to an item, logits: the most likely value for all contests together.

    It is told from strength by items that were shown first in some of their comparisons and second in others, so one order is to
    be drawn by chance. A pseudo-tie of weight `prior` keeps it finite for a judge that always says first.
    """
    counts = [_counts(match_.n_items, match_.wins) for match_ in matches]
    fitted = [np.zeros(match_.n_items) for match_ in matches]

    def slope(advantage: float) -> float:
        """Of the cost, when the strengths are the most likely ones for this advantage: it grows with the advantage."""
        total = prior * (float(_sigmoid(np.array(advantage))) - 0.5)
        for place, (asked, won) in enumerate(counts):
            table = _Table(asked, won, np.full_like(asked, advantage), prior)
            fitted[place] = _fitted(table, fitted[place])
            total += float((asked * table.expected(fitted[place]) - won).sum())
        return total

    low, high = -LARGEST_ADVANTAGE, LARGEST_ADVANTAGE
    while high - low > ADVANTAGE_TOLERANCE:
        middle = (low + high) / 2
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return (low + high) / 2


def _counts(n_items: int, wins: Sequence[Win]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How often each item was shown before each other, and was better then."""
    asked, won = np.zeros((n_items, n_items)), np.zeros((n_items, n_items))
    for first, second, probability in wins:
        assert first != second, "an item is not compared with itself"
        assert 0 <= probability <= 1, "a probability lies between 0 and 1"
        asked[first, second] += 1
        won[first, second] += probability
    return asked, won


def _fitted(table: _Table, strength: NDArray[np.float64]) -> NDArray[np.float64]:
    """The most likely strengths, from a first guess, with mean 0."""
    enough = TOLERANCE * max(1.0, table.asked.sum())
    for _ in range(MAX_STEPS):
        gradient = table.gradient(strength)
        if np.abs(gradient).max(initial=0.0) < enough:
            return np.asarray(strength - strength.sum() / max(1, len(strength)))
        strength = strength + _step(table, strength, gradient)
    raise AssertionError("Newton's method did not converge on a convex cost")


def _step(table: _Table, strength: NDArray[np.float64], gradient: NDArray[np.float64]) -> NDArray[np.float64]:
    """Newton's step, never a large one, halved until the cost falls: far from the optimum a full one can overshoot."""
    step = np.asarray(-np.linalg.solve(table.hessian(strength), gradient), dtype=np.float64)
    step = np.asarray(step / max(1.0, float(np.abs(step).max(initial=0.0)) / LARGEST_STEP))
    cost = table.cost(strength)
    rounding = 1e-12 * cost
    while table.cost(strength + step) > cost + rounding:
        step = step / 2
    return step


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(0.5 * (1 + np.tanh(x / 2)))


def _slope(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The derivative of the sigmoid, which is not rounded to 0 where the sigmoid is to 1."""
    return np.asarray(0.25 / np.cosh(np.clip(x, -600.0, 600.0) / 2) ** 2)
