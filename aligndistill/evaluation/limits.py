"""Which limits on a judge its audit exceeds."""

from collections.abc import Mapping

from aligndistill.evaluation.audit import AuditMetrics
from aligndistill.evaluation.intervals import Mean


def exceeded(metrics: AuditMetrics, limits: Mapping[str, float | None]) -> list[str]:
    """A sentence for each metric whose whole interval is worse than its limit, so that chance does not cause warnings.

    Args:
        limits: `unparsed`, `order_flips`, `first_position` (either way from one half), `longer_wins`, `canaries`,
            `inconsistent` (of questions asked twice), `disagreement` (with labels), `second_disagreement` (with the second
            judge); None disables a check.
    """
    agreement = metrics.labels.agreement if metrics.labels else None
    first = metrics.first_position
    measured = {
        "unparsed": (metrics.unparsed, "of the verdicts could not be parsed"),
        "order_flips": (metrics.order_flips, "of the pairs have another winner when the order is swapped"),
        "first_position": (
            first if first is None or first.mean >= 0.5 else _rest(first),
            f"of the decisions go to the answer shown {'first' if first is None or first.mean >= 0.5 else 'second'}",
        ),
        "longer_wins": (metrics.longer_wins, "of the decisions go to the longer answer"),
        "canaries": (metrics.canaries, "of the known-bad answers are preferred to a candidate"),
        "inconsistent": (_rest(metrics.self_consistency), "of the questions asked twice are answered differently"),
        "disagreement": (_rest(agreement), "of the labelled pairs disagree with the labels"),
        "second_disagreement": (_rest(metrics.second_agreement), "of the pairs are decided otherwise by the second judge"),
    }
    assert limits.keys() <= measured.keys()
    found = []
    for name, limit in limits.items():
        metric, text = measured[name]
        if limit is not None and metric is not None and metric.low > limit:
            interval = f"{100 * metric.low:.0f}% to {100 * metric.high:.0f}%"
            found.append(f"{100 * metric.mean:.0f}% [{interval}] {text} (limit {name}: {limit:g})")
    return found


def _rest(metric: Mean | None) -> Mean | None:
    return None if metric is None else Mean(mean=1 - metric.mean, low=1 - metric.high, high=1 - metric.low, n=metric.n)
