"""The audit's metrics as rows of a table, each with a value to compare it with."""

from collections.abc import Iterator
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from aligndistill.evaluation.audit import AuditMetrics
from aligndistill.evaluation.intervals import Mean
from aligndistill.reporting.writing import share


@dataclass(frozen=True)
class AuditRow:
    """One metric, a share.

    Attributes:
        wanted: the value to compare it with, as text.
        level: the value of an ideal judge, drawn as a tick; None if there is none.
        verdicts: the section of verdicts.html that shows the verdicts it counts; empty if there is none.
    """

    label: str
    figure: Mean
    wanted: str
    level: float | None = None
    verdicts: str = ""


SECTIONS = {
    "unreadable verdicts": "unreadable",
    "winner changes with the order": "order-flips",
    "known-bad answers preferred": "canaries-won",
}


def audit_rows(metrics: AuditMetrics) -> list[AuditRow]:
    """A row for each metric that was measured."""
    return [
        AuditRow(label, figure, wanted, level, SECTIONS.get(label, ""))
        for label, figure, wanted, level in _rows(metrics)
        if figure is not None
    ]


def _rows(metrics: AuditMetrics) -> Iterator[tuple[str, Mean | None, str, float | None]]:
    yield "unreadable verdicts", metrics.unparsed, "near 0%", 0.0
    yield "winner changes with the order", metrics.order_flips, "near 0%", 0.0
    yield "first answer wins", metrics.first_position, "near 50%", 0.5
    chance = metrics.longer_wins_by_chance
    by_chance = "" if chance is None else f"by chance {share(chance)}"
    labels = metrics.labels
    by_labels = "" if labels is None or labels.longer_wins is None else f"by the labels {share(labels.longer_wins)}"
    yield "longer answer wins", metrics.longer_wins, "; ".join(filter(None, (by_chance, by_labels))), chance.mean if chance else 0.5
    yield "intransitive choices (A > B > C > A)", metrics.intransitive, "near 0%; 25% by chance", 0.0
    yield "same choice when asked twice", metrics.self_consistency, "near 100%", 1.0
    own = metrics.own_answers_win_by_labels
    yield (
        "its own answers win",
        metrics.own_answers_win,
        "" if own is None else f"by the labels {share(own)}",
        own.mean if own else None,
    )
    revised = metrics.revisions_preferred_by_labels
    asked = 0 if metrics.revisions_preferred is None else metrics.revisions_preferred.n
    by_labels = "" if revised is None else f"; by the labels {share(revised)}"
    yield "revision beats its original", metrics.revisions_preferred, f"50%: no better; {asked:,} prompts{by_labels}", 0.5
    yield "judges of the panel agree", metrics.panel_agreement, "near 100%", 1.0
    if labels is not None:
        longer = labels.longer_wins
        wanted = "" if longer is None else f"always taking the longer: {share(longer)}"
        yield "agrees with the labels", labels.agreement, wanted, 1.0
    yield "agrees with the second judge", metrics.second_agreement, "as in the first round; 50% by chance", 1.0
    yield "known-bad answers preferred", metrics.canaries, "near 0%; 50% by chance", 0.0
    for kind, rate in metrics.canaries_by_kind.items():
        yield f"  of kind {kind.replace('_', ' ')}", rate, "near 0%", 0.0


def audit_table(metrics: AuditMetrics) -> Table:
    """The rows for a terminal."""
    title = f"{metrics.verdicts:,} verdicts on {metrics.prompts:,} prompts"
    table = Table(title=Text(title), title_justify="left", caption_justify="left")
    table.box, table.padding, table.show_edge = SIMPLE_HEAD, (0, 1, 0, 0), False
    table.caption = Text("[low, high]: 95% interval over prompts")
    table.add_column("metric", no_wrap=True)
    table.add_column("share", justify="right", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    table.add_column("compare with")
    for row in audit_rows(metrics):
        table.add_row(Text(row.label), Text(share(row.figure)), Text(f"{row.figure.n:,}"), Text(row.wanted))
    kappa = metrics.labels.kappa if metrics.labels else None
    if kappa is not None:
        table.add_row(
            Text("kappa with the labels"),
            Text(f"{kappa.mean:.2f} [{kappa.low:.2f}, {kappa.high:.2f}]"),
            Text(f"{kappa.n:,}"),
            Text("0 by chance"),
        )
    if metrics.label_mass is not None:
        table.add_row(Text("probability of the labels"), Text(f"{metrics.label_mass:.2f}"), Text(""), Text("median; near 1"))
    return table
