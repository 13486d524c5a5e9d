"""`evaluate` metric: how well rewards agree with known preferences, and whether they know how sure to be."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from aligndistill.evaluation.calibration import preference_metrics


class PreferenceAccuracy(evaluate.Metric):
    """Pairwise accuracy and calibration of rewards; predictions are the chosen answers' rewards, references the rejected's."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=(
                "Share of pairs in which the chosen answer gets the higher reward, the expected calibration error of "
                "sigmoid(chosen - rejected), and the share in which the chosen answer is the longer one."
            ),
            citation="Guo et al. (2017), On Calibration of Modern Neural Networks, arXiv:1706.04599.",
            inputs_description=(
                "predictions: rewards of the chosen answers. references: rewards of the rejected answers. "
                "Options: chosen_lengths and rejected_lengths (tokens), prompts (the prompt of each pair), bins (10), seed."
            ),
            features=datasets.Features({"predictions": datasets.Value("float64"), "references": datasets.Value("float64")}),
        )

    def _compute(
        self,
        predictions: Sequence[float],
        references: Sequence[float],
        chosen_lengths: Sequence[int] | None = None,
        rejected_lengths: Sequence[int] | None = None,
        prompts: Sequence[str] | None = None,
        bins: int = 10,
        seed: int = 0,
    ) -> dict[str, Any]:
        if (chosen_lengths is None) != (rejected_lengths is None):
            raise ValueError("give both chosen_lengths and rejected_lengths, or neither")
        length_gaps = None
        if chosen_lengths is not None and rejected_lengths is not None:
            length_gaps = np.subtract(chosen_lengths, rejected_lengths)
        metrics = preference_metrics(np.subtract(predictions, references), length_gaps, prompts, bins, seed)
        named = {"accuracy": metrics.accuracy, "ece": metrics.ece, "longer_wins": metrics.longer_wins}
        output: dict[str, Any] = {"n": metrics.accuracy.n}
        for name, figure in named.items():
            if figure is not None:
                output |= {name: figure.mean, f"{name}_low": figure.low, f"{name}_high": figure.high}
        return output
