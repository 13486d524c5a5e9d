"""Bradley-Terry strengths from soft comparisons: one number per item, on the logit scale.

The model is P(i beats j) = sigmoid(strength_i - strength_j) (Bradley and Terry 1952). A comparison may be sure (0 or 1), a tie
(0.5) or anything between, as a judge's probability is.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PRIOR = 0.1
"""Weight of the pseudo-tie that each item has with the average opponent; a tenth of one comparison."""

TOLERANCE = 1e-10
"""Newton's method stops when no entry of the gradient is larger than this times the number of comparisons."""

MAX_STEPS = 200
"""A few are enough; only a prior near 0 with undefeated items needs tens."""


class Win(NamedTuple):
    """`first` was compared with `second` and was found better with this probability. Items are numbered from 0."""

    first: int
    second: int
    probability: float


def strengths(n_items: int, wins: Sequence[Win], prior: float = PRIOR) -> list[float]:
    """The most likely strengths, with mean 0.

    Each item also ties once, with weight `prior`, with a virtual opponent of strength 0. That keeps an undefeated item finite
    and joins items that were never compared, and it draws all strengths a little together. As `prior` goes to 0, two items
    differ by exactly the logit of their mean probability.

    Args:
        n_items: how many items there are.
        wins: comparisons; the same two items may occur often, in either order.
        prior: weight of the pseudo-tie, in comparisons; positive.
    """
    assert prior > 0, "without a prior an undefeated item has no finite strength"
    won = np.zeros((n_items, n_items))  # won[i, j]: how often i beat j, in parts of a comparison
    for first, second, probability in wins:
        assert first != second, "an item is not compared with itself"
        assert 0 <= probability <= 1, "a probability lies between 0 and 1"
        won[first, second] += probability
        won[second, first] += 1 - probability
    strength = np.zeros(n_items)
    for _ in range(MAX_STEPS):
        gradient, hessian = _derivatives(strength, won, prior)
        if np.abs(gradient).max(initial=0.0) < TOLERANCE * max(1, len(wins)):
            return [float(value) for value in strength - strength.sum() / max(1, n_items)]
        strength = strength + _step(strength, won, prior, gradient, hessian)
    raise AssertionError("Newton's method did not converge on a convex cost")


def _step(
    strength: NDArray[np.float64],
    won: NDArray[np.float64],
    prior: float,
    gradient: NDArray[np.float64],
    hessian: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Newton's step, halved until the cost falls: far from the optimum a full one can overshoot."""
    step = np.asarray(-np.linalg.solve(hessian, gradient), dtype=np.float64)
    cost = _cost(strength, won, prior)
    rounding = 1e-12 * cost
    while _cost(strength + step, won, prior) > cost + rounding:
        step = step / 2
    return step


def _cost(strength: NDArray[np.float64], won: NDArray[np.float64], prior: float) -> float:
    """Negative log-likelihood, nats, pseudo-ties included."""
    gap = strength[:, None] - strength[None, :]
    ties = np.logaddexp(0, strength) + np.logaddexp(0, -strength)
    return float((won * np.logaddexp(0, -gap)).sum() + prior / 2 * ties.sum())


def _derivatives(
    strength: NDArray[np.float64], won: NDArray[np.float64], prior: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gradient and Hessian of `_cost`; the Hessian is positive definite because of the prior."""
    gap = strength[:, None] - strength[None, :]
    compared = won + won.T
    expected = _sigmoid(gap)
    expected_tie = _sigmoid(strength)
    gradient = (compared * expected - won).sum(axis=1) + prior * (expected_tie - 0.5)
    curvature = compared * expected * (1 - expected)
    hessian = np.diag(curvature.sum(axis=1) + prior * expected_tie * (1 - expected_tie)) - curvature
    return gradient, hessian


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 0.5 * (1 + np.tanh(x / 2))
