"""Students that were trained with several seeds: the mean of each metric over the seeds, and how far they are apart."""

from collections import defaultdict
from collections.abc import Mapping

from aligndistill.evaluation.intervals import Mean, Spread, spread
from aligndistill.reporting.report import StudentMetrics

METRICS = ("truth", "win_rate", "win_rate_lc", "kl_nats", "length_tokens", "reward")


def over_seeds(students: Mapping[str, StudentMetrics]) -> dict[str, dict[str, Spread]]:
    """Each student's metrics over its seeds, by its name in the config; a metric that not every seed has is left out."""
    of_student: dict[str, list[StudentMetrics]] = defaultdict(list)
    for metrics in students.values():
        if metrics.of is not None:
            of_student[metrics.of].append(metrics)
    found: dict[str, dict[str, Spread]] = {}
    for name, seeds in of_student.items():
        if len(seeds) > 1:
            values = {metric: [getattr(one, metric) for one in seeds] for metric in METRICS}
            means = {metric: [one.mean for one in row if isinstance(one, Mean)] for metric, row in values.items()}
            found[name] = {metric: spread(row) for metric, row in means.items() if len(row) == len(seeds)}
    return found
