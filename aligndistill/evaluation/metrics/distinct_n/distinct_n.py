"""`evaluate` metric: diversity across answers, as the share of their n-grams that are distinct."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from aligndistill.evaluation.text_metrics import distinct_n


class DistinctN(evaluate.Metric):
    """Distinct n-grams over all n-grams of all predictions."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Distinct n-grams over all n-grams of all predictions together, words split at white space.",
            citation="Li et al. (2016), A Diversity-Promoting Objective Function for Neural Conversation Models.",
            inputs_description="predictions: texts. Options: ngram_size (2). None when no text has that many words.",
            features=datasets.Features({"predictions": datasets.Value("string")}),
        )

    def _compute(self, predictions: Sequence[str], ngram_size: int = 2) -> dict[str, Any]:
        return {"distinct_n": distinct_n(predictions, ngram_size)}
