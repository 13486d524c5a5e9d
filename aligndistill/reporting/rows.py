"""The page's table of models: metrics as text, intervals as whiskers on a common scale per column."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aligndistill.evaluation.intervals import Mean
from aligndistill.reporting import writing
from aligndistill.reporting.columns import Column, authors_of
from aligndistill.reporting.report import ModelMetrics, Report, StudentMetrics, best_measure, leading_students

NOT_MEASURED = "-"


@dataclass(frozen=True)
class Whisker:
    """An interval on its column's scale, in per cent of the scale; `level` is the place of the value to compare with."""

    low: float
    mean: float
    high: float
    level: float | None


@dataclass(frozen=True)
class Cell:
    """A metric as text; a dash if it was not measured."""

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
    """A row per model, a cell per column; of several students, those that lead are marked, in the column that decides it."""
    models = authors_of(report)
    measure = report.leading.measure if report.leading else best_measure(report.students)
    cells_of: dict[str, list[Cell]] = {name: [] for name in models}
    for column in columns:
        marked = leading_students(report) if len(report.students) > 1 and column.key == measure else ()
        whisker_of = _whiskers(column, models)
        for name, metrics in models.items():
            cells_of[name].append(_cell(column.value(metrics), whisker_of.get(name), name in marked))
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
