"""The evaluation's metrics as `evaluate` metrics, loaded from this folder without network access.

`evaluate.load(metric_path("win_rate"))` works from anywhere. `evaluate` copies a metric into its modules cache
(`HF_MODULES_CACHE`, under the home directory unless set) before it imports it; the copies call this package's functions.
"""

from pathlib import Path

import evaluate

_FOLDER = Path(__file__).resolve().parent


def metric_path(name: str) -> str:
    """The folder of a metric, for `evaluate.load`.

    Raises:
        ValueError: there is no such metric.
    """
    names = sorted(script.stem for script in _FOLDER.glob("*/*.py") if script.stem == script.parent.name)
    if name not in names:
        raise ValueError(f"there is no metric '{name}'; the metrics are {', '.join(names)}")
    return str(_FOLDER / name)


def load_metric(name: str) -> evaluate.Metric:
    """Load a metric that keeps its inputs in memory.

    Raises:
        ValueError: there is no such metric.
    """
    return evaluate.load(metric_path(name), keep_in_memory=True)
