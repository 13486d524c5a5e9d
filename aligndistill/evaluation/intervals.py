"""Means with intervals: the percentile bootstrap over prompts, and the Wilson interval."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import fmean, stdev
from typing import TYPE_CHECKING, TypeAlias

from pydantic import FiniteFloat, NonNegativeInt, model_validator

from aligndistill.records import Record

if TYPE_CHECKING:  # numpy is imported late: reading stored metrics does not need it
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

FloatArray: TypeAlias = "NDArray[np.float64]"

_CELLS_AT_ONCE = 4_000_000  # resamples are drawn in blocks of about this many counts, 32 MB


class Mean(Record):
    """A metric with its interval.

    Attributes:
        mean: its value on the sample.
        low, high: ends of the interval (95 % unless stated otherwise); `low <= mean <= high`.
        n: the number of independent units (prompts).
    """

    mean: FiniteFloat
    low: FiniteFloat
    high: FiniteFloat
    n: NonNegativeInt

    @model_validator(mode="after")
    def _ordered(self) -> "Mean":
        if not self.low <= self.mean <= self.high:
            raise ValueError(f"the mean must be within the interval, but {self.low} <= {self.mean} <= {self.high} is false")
        return self


class Spread(Record):
    """A metric of several trainings that differ in their seed.

    Attributes:
        mean: over the seeds.
        deviation: the standard deviation of one training, with n - 1.
        low, high: the smallest and the largest.
        n: the number of seeds.
    """

    mean: FiniteFloat
    deviation: FiniteFloat
    low: FiniteFloat
    high: FiniteFloat
    n: NonNegativeInt


def spread(values: Sequence[float]) -> Spread:
    """The spread of at least two values."""
    return Spread(mean=fmean(values), deviation=stdev(values), low=min(values), high=max(values), n=len(values))


def wilson(successes: float, n: int) -> Mean:
    """A share of `n` independent trials with its 95 % score interval (Wilson 1927), which is accurate for few trials.

    Args:
        successes: how many; ties count as halves.

    Raises:
        ValueError: no trials.
    """
    if n == 0:
        raise ValueError("cannot compute a mean: there are no trials")
    z = 1.959963984540054
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Mean(mean=share, low=min(max(centre - half, 0.0), share), high=max(min(centre + half, 1.0), share), n=n)


def bootstrap_mean(values: Sequence[float], seed: int = 0, resamples: int = 2000, confidence: float = 0.95) -> Mean:
    """The mean of one value per prompt, with its percentile bootstrap interval.

    Raises:
        ValueError: no values, or one that is not finite.
    """
    import numpy as np

    count = len(values)
    return bootstrap_totals(np.reshape(values, (count, 1)), lambda totals: totals[:, 0] / count, seed, resamples, confidence)


def paired_difference(first: Mapping[str, float], second: Mapping[str, float]) -> Mean | None:
    """The mean of second minus first over the prompts that have both, with a bootstrap over prompts; None without any."""
    differences = [second[prompt] - first[prompt] for prompt in sorted(first.keys() & second.keys())]
    return bootstrap_mean(differences) if differences else None


def bootstrap_totals(
    rows_NC: "ArrayLike",
    statistic: Callable[[FloatArray], FloatArray],
    seed: int = 0,
    resamples: int = 2000,
    confidence: float = 0.95,
) -> Mean:
    """A statistic of column totals, with its percentile bootstrap interval (Efron and Tibshirani 1993, section 13.3).

    A row is the contribution of one prompt to the totals, so dependent values (the pairs of one prompt) are resampled together.

    Args:
        rows_NC: N prompts, C columns.
        statistic: from totals (R, C) to values (R,), for R resamples at once.
        seed: of the resampling.
        resamples: how many samples of N prompts are drawn, with replacement.
        confidence: the share of resampled values inside the interval.

    Returns:
        The value on the sample and the interval, widened to contain that value if the statistic is biased
        (resampling increases a calibration error).

    Raises:
        ValueError: no rows, or a number that is not finite.
    """
    import numpy as np

    rows = np.asarray(rows_NC, dtype=np.float64)
    count = len(rows)
    if count == 0:
        raise ValueError("cannot compute a mean: there are no values")
    if not np.isfinite(rows).all():
        raise ValueError(f"row {int(np.argmin(np.isfinite(rows).all(axis=1)))} is not a finite number")
    assert resamples > 0
    assert 0 < confidence < 1
    value = float(statistic(rows.sum(axis=0, keepdims=True))[0])
    resampled = np.concatenate([statistic(drawn_RN @ rows) for drawn_RN in times_drawn(seed, resamples, count)])
    return between_quantiles(value, resampled, count, confidence)


def between_quantiles(value: float, resampled: FloatArray, count: int, confidence: float = 0.95) -> Mean:
    """A value with its percentile interval of resampled ones, widened to contain it."""
    import numpy as np

    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Mean(mean=value, low=min(float(low), value), high=max(float(high), value), n=count)


def times_drawn(seed: int, resamples: int, count: int, cells: int | None = None) -> Iterator[FloatArray]:
    """How often each of `count` rows is drawn in each resample, (R, count), for a block of R resamples at a time.

    Args:
        cells: the numbers that the caller needs for a resample; as many as there are rows by default.
    """
    import numpy as np

    generator = np.random.default_rng(seed)
    block = max(1, _CELLS_AT_ONCE // (cells or count))
    for start in range(0, resamples, block):
        yield _times_drawn(generator, min(block, resamples - start), count)


def share(counted: Iterable[tuple[str, float]]) -> Mean | None:
    """The mean of (prompt, value) pairs, with a bootstrap over prompts; None without any."""
    rows: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for prompt, value in counted:
        rows[prompt][0] += value
        rows[prompt][1] += 1
    return bootstrap_totals(list(rows.values()), lambda totals: totals[:, 0] / totals[:, 1]) if rows else None


def _times_drawn(generator: "np.random.Generator", resamples: int, count: int) -> FloatArray:
    """How often each of `count` rows is drawn in each resample, (resamples, count)."""
    import numpy as np

    drawn = generator.integers(count, size=(resamples, count)) + count * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * count).reshape(resamples, count).astype(np.float64)
