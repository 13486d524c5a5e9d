"""How far a reward model's probabilities can be trusted, on pairs whose better answer is known.

A pair is the difference of two rewards, chosen - rejected, and P(chosen wins) = sigmoid(difference) (Bradley-Terry).
A pair's length gap is the chosen answer's length less the rejected answer's, tokens. Ties count half everywhere.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aligndistill.evaluation.intervals import FloatArray, Mean, bootstrap_totals
from aligndistill.evaluation.preference_metrics import LengthGapBin, PreferenceMetrics, ReliabilityBin


def accuracy(differences: ArrayLike) -> float:
    """Share of pairs in which the chosen answer gets the higher reward."""
    return float(_wins(differences).mean())


def longer_baseline(length_gaps: ArrayLike) -> float:
    """Share of pairs in which the chosen answer is the longer one."""
    return float(_wins(length_gaps).mean())


def expected_calibration_error(probabilities: ArrayLike, outcomes: ArrayLike, bins: int = 10) -> float:
    """Mean distance between confidence and accuracy over bins of equal width, weighted by their counts.

    Guo et al. 2017 (arXiv:1706.04599), equation 3. It is about the answer that was preferred, whichever place it stood in
    (confidence = max(p, 1 - p), in [0.5, 1]), so swapping a pair changes nothing.

    Args:
        probabilities: P(first wins) of each pair.
        outcomes: 1 where the first is the better one, 0 where the second is, 0.5 for a tie.
        bins: how many between 0.5 and 1.
    """
    confidence, correct = _preferred(probabilities, outcomes)
    return float(_calibration_error(_gaps_by_bin(confidence, correct, bins).sum(axis=0, keepdims=True))[0])


def reliability(probabilities: ArrayLike, outcomes: ArrayLike, bins: int = 10) -> list[ReliabilityBin]:
    """The bins behind `expected_calibration_error`, empty ones left out."""
    confidence, correct = _preferred(probabilities, outcomes)
    edges = _edges(bins)
    bin_of_pair = _bin_of(confidence, bins)
    return [
        ReliabilityBin(
            low=float(edges[index]),
            high=float(edges[index + 1]),
            count=int(inside.sum()),
            confidence=float(confidence[inside].mean()),
            accuracy=float(correct[inside].mean()),
        )
        for index in range(bins)
        if (inside := bin_of_pair == index).any()
    ]


def accuracy_by_length_gap(differences: ArrayLike, length_gaps: ArrayLike, edges: Sequence[float]) -> list[LengthGapBin]:
    """Accuracy of pairs by their length gap, bins cut at increasing `edges`, open at both ends, empty ones left out.

    A reward model that follows length is right where the chosen answer is longer and wrong where it is shorter.
    """
    assert list(edges) == sorted(edges)
    wins = _wins(differences)
    bin_of_pair = np.digitize(np.asarray(length_gaps, dtype=np.float64), edges)
    ends = [None, *map(float, edges), None]
    return [
        LengthGapBin(low=ends[index], high=ends[index + 1], count=int(inside.sum()), accuracy=float(wins[inside].mean()))
        for index in range(len(edges) + 1)
        if (inside := bin_of_pair == index).any()
    ]


def preference_metrics(
    differences: ArrayLike,
    length_gaps: ArrayLike | None = None,
    prompts: Sequence[str] | None = None,
    bins: int = 10,
    seed: int = 0,
) -> PreferenceMetrics:
    """Accuracy, calibration error and the longer-wins rate of pairs, with intervals.

    Args:
        differences: reward of the chosen answer less that of the rejected one, of each pair.
        length_gaps: length of the chosen answer less that of the rejected one, tokens.
        prompts: the prompt of each pair. A prompt's pairs are not independent, so they are drawn together; without this
            every pair is its own.
        bins: of the calibration error.
        seed: of the bootstrap.

    Raises:
        ValueError: no pairs, or a number that is not finite.
    """
    from scipy.special import expit  # only here: importing scipy takes longer than reading a report

    differences = np.asarray(differences, dtype=np.float64)
    if not np.isfinite(differences).all():
        raise ValueError(f"the reward difference of pair {int(np.argmin(np.isfinite(differences)))} is not a finite number")
    group_of_pair = np.arange(len(differences)) if prompts is None else np.unique(list(prompts), return_inverse=True)[1]
    confidence, correct = _preferred(expit(differences), np.ones_like(differences))
    calibration_rows = _sum_by_group(_gaps_by_bin(confidence, correct, bins), group_of_pair)
    return PreferenceMetrics(
        accuracy=_share(_wins(differences), group_of_pair, seed),
        longer_wins=None if length_gaps is None else _share(_wins(length_gaps), group_of_pair, seed),
        ece=bootstrap_totals(calibration_rows, _calibration_error, seed),
    )


def _wins(differences: ArrayLike) -> FloatArray:
    return np.heaviside(np.asarray(differences, dtype=np.float64), 0.5)


def _preferred(probabilities: ArrayLike, outcomes: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Each pair seen from the answer that was given the higher probability: how sure, and whether it was right."""
    probability = np.asarray(probabilities, dtype=np.float64)
    outcome = np.asarray(outcomes, dtype=np.float64)
    assert probability.shape == outcome.shape
    correct = np.select([probability > 0.5, probability < 0.5], [outcome, 1 - outcome], 0.5)
    return np.maximum(probability, 1 - probability), correct


def _edges(bins: int) -> FloatArray:
    return np.linspace(0.5, 1, bins + 1)


def _bin_of(confidence: FloatArray, bins: int) -> NDArray[np.intp]:
    return np.digitize(confidence, _edges(bins)[1:-1])


def _gaps_by_bin(confidence: FloatArray, correct: FloatArray, bins: int) -> FloatArray:
    """Per pair: its confidence less its correctness in its bin's column, zero in the others; a last column of ones."""
    rows = np.zeros((len(confidence), bins + 1))
    rows[np.arange(len(confidence)), _bin_of(confidence, bins)] = confidence - correct
    rows[:, bins] = 1
    return rows


def _calibration_error(totals_RC: FloatArray) -> FloatArray:
    error: FloatArray = np.abs(totals_RC[:, :-1]).sum(axis=1) / totals_RC[:, -1]
    return error


def _share(wins: FloatArray, group_of_pair: NDArray[np.intp], seed: int) -> Mean:
    rows = _sum_by_group(np.column_stack([wins, np.ones_like(wins)]), group_of_pair)
    return bootstrap_totals(rows, lambda totals: totals[:, 0] / totals[:, 1], seed)


def _sum_by_group(rows: FloatArray, group_of_row: NDArray[np.intp]) -> FloatArray:
    sums = np.zeros((int(group_of_row.max(initial=-1)) + 1, rows.shape[1]))
    np.add.at(sums, group_of_row, rows)
    return sums
