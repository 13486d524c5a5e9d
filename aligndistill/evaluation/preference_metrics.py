"""The result types of `calibration.py`, in a separate module that does not import numpy or scipy."""

from aligndistill.evaluation.intervals import Mean
from aligndistill.records import Record


class ReliabilityBin(Record):
    """Pairs with similar confidence.

    Attributes:
        low, high: the bin, in [0.5, 1].
        confidence: mean probability of the preferred answer.
        accuracy: share of pairs whose preferred answer is the better one.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


class LengthGapBin(Record):
    """Pairs with similar length gaps: `low <= gap < high` tokens; None is an open end."""

    low: float | None
    high: float | None
    count: int
    accuracy: float


class PreferenceMetrics(Record):
    """Agreement with known preferences; `n` of each metric is the number of prompts.

    Attributes:
        accuracy: share of pairs in which the chosen answer gets the higher reward.
        longer_wins: share in which the chosen answer is longer: the accuracy of always preferring the longer answer.
        ece: expected calibration error.
    """

    accuracy: Mean
    longer_wins: Mean | None
    ece: Mean
