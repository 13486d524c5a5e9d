"""The page's table of models: metrics as text, intervals as whiskers on a common scale per column."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from aligndistill.evaluation.against_start import AgainstStart
from aligndistill.evaluation.intervals import Mean
from aligndistill.reporting import writing
from aligndistill.reporting.columns import Column, authors_of
from aligndistill.reporting.report import ModelMetrics, Report, StudentMetrics, best_measure, leading_students

MOSTLY_SHARES = ("truth", "quantized.truth")
"""Scores of the user's own functions, drawn from 0 to 1 where they all are."""


@dataclass(frozen=True)
class Whisker:
    """An interval on its column's scale, in per cent of the scale; `level` is the place of the value to compare with."""

    low: float
    mean: float
    high: float
    level: float | None


@dataclass(frozen=True)
class Cell:
    """A metric as text, with n; empty if there is none, and `why`. A win rate has the comparisons, too."""

    text: str = ""
    interval: str = ""
    whisker: Whisker | None = None
    best: bool = False
    n: int | None = None
    outcomes: AgainstStart | None = None
    why: str = "not measured"


@dataclass(frozen=True)
class TableRow:
    """A model; `series` is its colour, None for the start and the teacher. `training` is empty if it was not trained here."""

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
            cell = _cell(column.value(metrics), whisker_of.get(name), name in marked)
            cells_of[name].append(replace(cell, why=_why(column, name), outcomes=_outcomes(column, metrics)))
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
        return Cell(writing.number(value.mean), writing.interval(value), whisker, best, value.n)
    return Cell(writing.number(value))


def _why(column: Column, model: str) -> str:
    """Why a model has no such metric."""
    other = "teacher" if column.key == "win_rate_teacher" else "start"
    if (column.is_win_rate or column.key == "kl_nats") and model == other:
        return f"is the {other}"
    return "not measured"


def _outcomes(column: Column, metrics: ModelMetrics) -> AgainstStart | None:
    return metrics.against_start if column.key == "win_rate" and isinstance(metrics, StudentMetrics) else None


def _whiskers(column: Column, models: Mapping[str, ModelMetrics]) -> dict[str, Whisker]:
    figure_of = {name: value for name, metrics in models.items() if isinstance(value := column.value(metrics), Mean)}
    if not figure_of:
        return {}
    lowest = min(0.0, *(figure.low for figure in figure_of.values()))
    highest = max(figure.high for figure in figure_of.values())
    if column.is_share or (column.key in MOSTLY_SHARES and lowest >= 0 and highest <= 1):
        lowest, highest = 0.0, 1.0
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
    return "" if seconds is None else writing.duration(seconds)
