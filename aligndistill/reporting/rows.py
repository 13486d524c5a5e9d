"""The page's table of models, ready to be written out: figures as text, intervals as whiskers on a common scale per column."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aligndistill.evaluation.intervals import Mean
from aligndistill.reporting import writing
from aligndistill.reporting.columns import Column, authors_of, best_in
from aligndistill.reporting.report import ModelMetrics, Report, StudentMetrics

NOT_MEASURED = "-"


@dataclass(frozen=True)
class Whisker:
    """An interval on its column's scale, in per cent of the scale; `level` is where what it is compared with lies."""

    low: float
    mean: float
    high: float
    level: float | None


@dataclass(frozen=True)
class Cell:
    """A figure as text; what was not measured is a dash."""

    text: str = NOT_MEASURED
    interval: str = ""
    whisker: Whisker | None = None
    best: bool = False


@dataclass(frozen=True)
class TableRow:
    """A model; `series` is its colour, None for the start and the teacher."""

    name: str
    objective: str
    series: int | None
    cells: tuple[Cell, ...]
    training: str


def table_rows(report: Report, columns: Sequence[Column], series: Mapping[str, int | None]) -> list[TableRow]:
    """A row per model, a cell per column; the best of several students is marked."""
    models = authors_of(report)
    cells_of: dict[str, list[Cell]] = {name: [] for name in models}
    for column in columns:
        best = best_in(column, report.students) if len(report.students) > 1 else None
        whisker_of = _whiskers(column, models)
        for name, metrics in models.items():
            cells_of[name].append(_cell(column.value(metrics), whisker_of.get(name), name == best))
    return [
        TableRow(
            name=name,
            objective=metrics.objective if isinstance(metrics, StudentMetrics) else "",
            series=series[name],
            cells=tuple(cells_of[name]),
            training=_training_time(metrics),
        )
        for name, metrics in models.items()
    ]


def _cell(value: Mean | float | None, whisker: Whisker | None, best: bool) -> Cell:
    if value is None:
        return Cell()
    if isinstance(value, Mean):
        return Cell(writing.number(value.mean), writing.interval(value), whisker, best)
    return Cell(writing.number(value))


def _whiskers(column: Column, models: Mapping[str, ModelMetrics]) -> dict[str, Whisker]:
    figure_of = {name: value for name, metrics in models.items() if isinstance(value := column.value(metrics), Mean)}
    if not figure_of:
        return {}
    lowest = min(0.0, *(figure.low for figure in figure_of.values()))
    highest = max(figure.high for figure in figure_of.values())
    if column.is_win_rate:
        highest = 1.0
    width = (highest - lowest) or 1.0

    def place(value: float) -> float:
        return round(100 * (value - lowest) / width, 2)

    start = figure_of.get("start")
    level = 0.5 if column.is_win_rate else start.mean if start is not None else None
    return {
        name: Whisker(place(figure.low), place(figure.mean), place(figure.high), None if level is None else place(level))
        for name, figure in figure_of.items()
    }


def _training_time(metrics: ModelMetrics) -> str:
    seconds = metrics.train_seconds if isinstance(metrics, StudentMetrics) else None
    return NOT_MEASURED if seconds is None else writing.duration(seconds)
