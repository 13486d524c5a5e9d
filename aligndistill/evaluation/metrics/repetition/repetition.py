"""`evaluate` metric: repetition within an answer, averaged over answers."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from aligndistill.evaluation.intervals import bootstrap_mean
from aligndistill.evaluation.text_metrics import repetition


class Repetition(evaluate.Metric):
    """Mean share of a text's n-grams that occurred earlier in it."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Mean share of a text's n-grams that occurred earlier in the same text, with a bootstrap interval.",
            citation="Welleck et al. (2020), Neural Text Generation with Unlikelihood Training, arXiv:1908.04319.",
            inputs_description="predictions: texts. Options: ngram_size (4), seed.",
            features=datasets.Features({"predictions": datasets.Value("string")}),
        )

    def _compute(self, predictions: Sequence[str], ngram_size: int = 4, seed: int = 0) -> dict[str, Any]:
        metric = bootstrap_mean([repetition(text, ngram_size) for text in predictions], seed)
        return {"repetition": metric.mean, "low": metric.low, "high": metric.high, "n": metric.n}
