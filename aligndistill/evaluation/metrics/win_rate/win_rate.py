"""`evaluate` metric: how often one model's answers beat another's, with an interval over prompts."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from aligndistill.evaluation.intervals import bootstrap_mean


class WinRate(evaluate.Metric):
    """Mean P(win) over prompts."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Mean probability of winning a comparison, with a percentile bootstrap interval over prompts.",
            citation="Efron and Tibshirani (1993), An Introduction to the Bootstrap, section 13.3.",
            inputs_description="predictions: P(win) of each prompt, 0.5 for a tie. Options: seed, resamples, confidence.",
            features=datasets.Features({"predictions": datasets.Value("float64")}),
        )

    def _compute(
        self, predictions: Sequence[float], seed: int = 0, resamples: int = 2000, confidence: float = 0.95
    ) -> dict[str, Any]:
        for row, probability in enumerate(predictions):
            if not 0 <= probability <= 1:
                raise ValueError(f"prediction {row} is {probability}, but a probability must be between 0 and 1")
        metric = bootstrap_mean(predictions, seed, resamples, confidence)
        return {"win_rate": metric.mean, "low": metric.low, "high": metric.high, "n": metric.n}
