"""What `calibration.py` finds out, apart from it: reading a report needs neither numpy nor scipy."""

from aligndistill.evaluation.intervals import Mean
from aligndistill.records import Record


class ReliabilityBin(Record):
    """Pairs that were ordered with about the same confidence.

    Attributes:
        low, high: the bin, in [0.5, 1].
        confidence: mean probability given to the answer that was preferred.
        accuracy: share in which it was the better one.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


class LengthGapBin(Record):
    """Pairs with about the same length gap: `low <= gap < high` tokens; None is an open end."""

    low: float | None
    high: float | None
    count: int
    accuracy: float


class PreferenceMetrics(Record):
    """Agreement with known preferences; `n` of each figure is the number of prompts.

    Attributes:
        accuracy: share of pairs in which the chosen answer gets the higher reward.
        longer_wins: share in which the chosen answer is the longer one: what accuracy "the longer is better" would have.
        ece: expected calibration error.
    """

    accuracy: Mean
    longer_wins: Mean | None
    ece: Mean
