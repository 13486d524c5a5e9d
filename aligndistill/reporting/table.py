"""A run as a table for the terminal."""

from collections.abc import Iterable, Iterator

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from aligndistill.evaluation.intervals import Mean
from aligndistill.reporting.columns import COLUMNS, Column, authors_of, measured
from aligndistill.reporting.report import ModelMetrics, Report, StudentMetrics, leading_students
from aligndistill.reporting.writing import duration, number, shortened, with_interval

_NOT_MEASURED = "-"
_SHOWN = [column for column in COLUMNS if column.key in ("truth", "win_rate", "win_rate_lc", "kl_nats", "length_tokens", "reward")]
_WITH_INTERVAL = ("truth", "win_rate")
LEAVES_OUT = ("training", "reward", "length", "LC", "KL", "win rate")
"""Columns that a narrow terminal does not show, the first one first."""


def render_table(report: Report) -> Table:
    """The start, the teacher and every student of a run; those that lead are bold and starred."""
    shown = _shown(report)
    table = _table(f"{report.run} (seed {report.seed})", ["model"], shown)
    table.add_column("training", justify="right", no_wrap=True)
    ended = [f"no round followed round {one.round}: {one.ended}" for one in report.rounds if one.ended]
    table.caption = Text("\n".join([str(table.caption), *ended]))
    marked = leading_students(report)
    table.caption = Text("\n".join([str(table.caption), *_over_seeds(report)]))
    for name, metrics in authors_of(report).items():
        seconds = metrics.train_seconds if isinstance(metrics, StudentMetrics) else None
        training = _NOT_MEASURED if seconds is None else duration(seconds)
        _add_row(table, [shortened(name, 16)], [*_cells(metrics, shown), training], name in marked)
    if any(cell == Text(_NOT_MEASURED) for column in table.columns for cell in column.cells):
        table.caption = Text(f"{table.caption}\n{_NOT_MEASURED}: not measured, or has no meaning for this model")
    return table


def _over_seeds(report: Report) -> Iterator[str]:
    """Truth and win rate over the seeds, a line for each student."""
    for name, metrics in report.over_seeds.items():
        shown = ((title, metrics[key]) for key, title in (("truth", "truth"), ("win_rate", "win rate")) if key in metrics)
        values = [f"{title} {number(one.mean)} (sd {number(one.deviation)})" for title, one in shown]
        if values:
            yield f"{shortened(name, 16)} over {next(iter(metrics.values())).n} seeds: {', '.join(values)}"


def _shown(report: Report) -> list[Column]:
    """The win rate at equal length has a column where it was measured; what else was not has a dash."""
    students = list(report.students.values())
    return [column for column in _SHOWN if column.key != "win_rate_lc" or measured([column], students)]


def _table(title: str | None, names: Iterable[str], columns: Iterable[Column]) -> Table:
    table = Table(title=Text(shortened(title, 90)) if title else None, title_justify="left", caption_justify="left")
    table.box, table.padding, table.show_edge = SIMPLE_HEAD, (0, 1, 0, 0), False  # two spaces between columns, so that all fit
    columns = list(columns)
    controlled = "LC: win rate at equal length   " if any(column.key == "win_rate_lc" for column in columns) else ""
    explained = f"{controlled}KL: nats per response   length: tokens"
    leading = "* leading, or not distinguishable from it"
    table.caption = Text(f"{leading}   [low, high]: 95% interval over prompts\n{explained}")
    for name in names:
        table.add_column(name, no_wrap=True)
    for column in columns:
        table.add_column(column.title, justify="right", no_wrap=True)
    return table


def _cells(metrics: ModelMetrics, columns: Iterable[Column]) -> list[str]:
    values = [(column.key, column.value(metrics)) for column in columns]
    return [
        _NOT_MEASURED
        if value is None
        else with_interval(value)
        if isinstance(value, Mean) and key in _WITH_INTERVAL
        else number(value.mean if isinstance(value, Mean) else value)
        for key, value in values
    ]


def _add_row(table: Table, names: list[str], cells: list[str], best: bool) -> None:
    if best:
        names = [*names[:-1], f"{names[-1]} *"]
    # Text, not str: rich reads markup, such as [bold] or the [0.57, 0.67] of an interval, in a str.
    table.add_row(*map(Text, names), *map(Text, cells), style="bold green" if best else None)
