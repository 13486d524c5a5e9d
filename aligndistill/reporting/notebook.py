"""Small HTML views for notebooks: a run, some of its samples, and two runs compared. Self-contained, escaped, without scripts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from markupsafe import Markup

from aligndistill.evaluation.intervals import Mean
from aligndistill.reporting.columns import COLUMNS, authors_of, measured
from aligndistill.reporting.headline import result_sentence
from aligndistill.reporting.marks import mark, series_of
from aligndistill.reporting.page import answer_diff, result_plots
from aligndistill.reporting.report import Report
from aligndistill.reporting.rows import table_rows
from aligndistill.reporting.samples import START, SamplePrompt
from aligndistill.reporting.templates import environment

SHOWN = ("truth", "win_rate", "win_rate_lc", "kl_nats", "length_tokens", "reward")
MOST_PLOTS = 2
NAMES = {"win": "win rate", "length_tokens": "length, tokens"}


class Difference(Protocol):
    """A measure of one model in two runs."""

    @property
    def base(self) -> float:
        """In the base run."""

    @property
    def other(self) -> float:
        """In the other run."""

    @property
    def difference(self) -> Mean:
        """Other minus base, paired over the shared prompts."""


def run_html(report: Report, folder: str) -> str:
    """The result, what to check first, the table of models and two plots."""
    models = authors_of(report)
    columns = measured([column for column in COLUMNS if column.key in SHOWN], list(models.values()))
    series = series_of(list(models))
    return _macro(
        "run",
        report=report,
        result=result_sentence(report),
        columns=columns,
        rows=table_rows(report, columns, series),
        plots=[figure.plot for figure in result_plots(report, series)[:MOST_PLOTS]],
        series=series,
        mark=mark,
        checks=report.checks,
        folder=folder,
    )


def unfinished_html(name: str, stages: Sequence[str], folder: str) -> str:
    """A run without a report."""
    return _macro("unfinished", name=name, stages=stages, folder=folder)


def samples_html(title: str, samples: Sequence[SamplePrompt], student: str) -> str:
    """Prompts with the start's answer and the student's, compared word by word."""
    shown = [(one, one.of(START), answer) for one in samples if (answer := one.of(student)) is not None]
    return _macro("samples", title=title, shown=shown, diff=answer_diff)


def comparison_html(title: str, notes: Sequence[str], cells: Mapping[tuple[str, str], Difference]) -> str:
    """A row for each model, a column for each measure; `cells` by model and measure."""
    models, measures = (list(dict.fromkeys(names)) for names in (zip(*cells, strict=True) if cells else ((), ())))
    return _macro("comparison", title=title, notes=notes, models=models, measures=measures, names=NAMES, cells=cells)


def _macro(macro: str, **values: Any) -> str:
    templates = environment()
    templates.filters["our_svg"] = Markup
    templates.globals["notebook_css"] = Markup((Path(__file__).parent / "notebook.css").read_text(encoding="utf-8"))
    module = templates.get_template("notebook.html.j2").make_module()
    return str(getattr(module, macro)(**values))
