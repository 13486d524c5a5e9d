"""One self-contained HTML page about a run: no scripts, fonts or external resources, and no inline styles.

Prompts, answers, names and the config come from models and users, and the template escapes them all. Only the
package's own SVG is inserted unescaped: matplotlib has escaped the names in it. The run's folder fills in how the run was made and
what people voted, at the comments `about` and `votes` (`reporting/inserts.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from markupsafe import Markup

from aligndistill.evaluation.intervals import Mean
from aligndistill.evaluation.preference_metrics import LengthGapBin, ReliabilityBin
from aligndistill.reporting import plots
from aligndistill.reporting.audit_rows import audit_rows
from aligndistill.reporting.checks import RULES, VIEWER_FILTERS, by_kind
from aligndistill.reporting.columns import COLUMNS, authors_of, measured
from aligndistill.reporting.drawing import Plot
from aligndistill.reporting.headline import result_sentence
from aligndistill.reporting.marks import colour_of, mark, series_of
from aligndistill.reporting.report import Report, leading_students
from aligndistill.reporting.rows import table_rows
from aligndistill.reporting.samples import SampleAnswer, SamplePrompt
from aligndistill.reporting.templates import environment
from aligndistill.reporting.texts import Piece, word_diff
from aligndistill.reporting.updates import Updates, chosen_samples, updates_plot


@dataclass(frozen=True)
class DataCounts:
    """The numbers of records of a run; None for stages that it does not have. `dropped` counts by reason."""

    train_prompts: int | None = None
    held_out_prompts: int | None = None
    candidates: int | None = None
    rankings: int | None = None
    pairs: int | None = None
    dropped: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class PageData:
    """The data of the page; empty parts are omitted.

    Attributes:
        curves: per student, (optimiser step, loss) in order.
        updates: per on-policy student, its log and samples.
        lengths: per model (`start`, `teacher`, a student), the length of each held-out answer, tokens.
        samples: of each student, prompts to show with their answers (see `samples_of`).
        reliability, length_gaps: of the reward model, on held-out pairs.
        config_yaml: the resolved config.
    """

    report: Report
    curves: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    updates: Mapping[str, Updates] = field(default_factory=dict)
    lengths: Mapping[str, Sequence[int]] = field(default_factory=dict)
    samples: Mapping[str, Sequence[SamplePrompt]] = field(default_factory=dict)
    reliability: Sequence[ReliabilityBin] = ()
    length_gaps: Sequence[LengthGapBin] = ()
    counts: DataCounts = DataCounts()
    config_yaml: str = ""


@dataclass(frozen=True)
class Figure:
    """A plot with its heading, and a caption that says how to read it."""

    title: str
    caption: str
    plot: Plot


def write_page(path: Path, data: PageData) -> None:
    """Write the page, UTF-8. Lone surrogates, which a model's text may hold, become question marks."""
    path.write_bytes(render_page(data).encode("utf-8", "replace"))


def render_page(data: PageData) -> str:
    """The page as text; the same for the same data."""
    templates = environment()
    templates.filters |= {"our_svg": Markup}
    report = data.report
    models = authors_of(report)
    columns = measured(COLUMNS, list(models.values()))
    authors = [answer.author for some in data.samples.values() for sample in some for answer in sample.answers]
    series = series_of([*models, *data.curves, *data.updates, *data.lengths, *data.samples, *authors])
    means = [value for column in columns for metrics in models.values() if isinstance(value := column.value(metrics), Mean)]
    compared = [student for student in report.students.values() if student.against_start is not None]
    return templates.get_template("page.html.j2").render(
        data=data,
        report=report,
        rules=RULES,
        viewer_filters=VIEWER_FILTERS,
        checks=by_kind(report.checks),
        result=result_sentence(report),
        not_measured=_not_measured(report),
        held_out=max((mean.n for mean in means), default=None),
        compared_with_start=bool(compared),
        columns=columns,
        seed_columns=[column for column in COLUMNS if any(column.key in metrics for metrics in report.over_seeds.values())],
        leading_by=next((one.title for one in COLUMNS if report.leading and one.key == report.leading.measure), ""),
        rows=table_rows(report, columns, series),
        outcomes_shown=any(one.against_start and one.against_start.compared for one in compared),
        series=series,
        mark=mark,
        colour_of=colour_of,
        audit=audit_rows(report.audit) if report.audit else [],
        result_plots=result_plots(report, series),
        reward_plots=_reward_plots(data),
        round_plots=_round_plots(report),
        training_plots=_training_plots(data, series),
        written={name: chosen_samples(updates.samples) for name, updates in data.updates.items()},
        open_samples=next(iter([*leading_students(report), *data.samples]), None),
        diff=answer_diff,
    )


def answer_diff(sample: SamplePrompt, answer: SampleAnswer) -> list[Piece]:
    """An answer compared with the start's, word by word; as it is without one."""
    start = sample.of("start")
    return [Piece("same", answer.text)] if start is None else word_diff(start.text, answer.text)


def _not_measured(report: Report) -> list[str]:
    models = list(authors_of(report).values())
    absent = [column.title for column in COLUMNS[:2] if not measured([column], models)]
    parts = {"teacher": report.teacher, "judge": report.judge, "reward model": report.reward_model}
    return absent + [name for name, part in parts.items() if part is None]


FROM_TEACHER = "KL(teacher || student), nats per token of the teacher's answers"


def result_plots(report: Report, series: Mapping[str, int | None]) -> list[Figure]:
    """Win rate and truth of the students against how far they are from the start, and from the teacher."""
    levels = {"win_rate": {"no difference": 0.5}, "truth": {}}
    for name, metrics in (("start", report.start), ("teacher", report.teacher)):
        if metrics is not None and metrics.truth is not None:
            levels["truth"][name] = metrics.truth.mean
    from_start = {name: one.kl_nats for name, one in report.students.items() if one.kl_nats is not None}
    from_teacher = {name: one.fidelity.kl_forward for name, one in report.students.items() if one.fidelity is not None}
    found = []
    for key, label in (("win_rate", "win rate"), ("truth", "truth")):
        for distance, what, distance_label, meaning in (
            (from_start, "drift", plots.FROM_START, "right is further from the start."),
            (from_teacher, "fidelity", FROM_TEACHER, "left is closer to the teacher. They are different things."),
        ):
            points = [
                plots.DriftPoint(name, series[name], distance[name], gain)
                for name, student in report.students.items()
                if name in distance and (gain := getattr(student, key)) is not None
            ]
            if points:
                plot = plots.drift_plot(points, label, levels[key], distance_label)
                found.append(Figure(f"{label.capitalize()} and {what}", f"Up is better, {meaning} Bars are 95% intervals.", plot))
    return found


def _round_plots(report: Report) -> list[Figure]:
    """What became of the promoted students, and how hard the training prompts were, where there are several rounds of them."""
    students = {one.round: report.students[one.student] for one in report.rounds if one.student is not None}
    reached = {
        "truth": {name: one.truth for name, one in students.items()},
        "win rate": {name: one.win_rate for name, one in students.items()},
        "at equal length": {name: one.win_rate_lc for name, one in students.items()},
    }
    went = {
        "KL from the start, nats": {name: one.kl_nats for name, one in students.items()},
        "length, tokens": {name: one.length_tokens for name, one in students.items()},
    }
    asked = {
        "accept rate": {one.round: one.accept_rate for one in report.rounds},
        "difficulty": {one.round: one.difficulty for one in report.rounds},
    }
    promoted = "Of each round's promoted student, on the held-out prompts; wins are over the start. Bars are 95% intervals."
    training = "Of each round's training prompts, for the model that the round started from. Bars are 95% intervals."
    drawn = (
        ("Quality by round", promoted, reached),
        ("Distance by round", promoted, went),
        ("Accept rate and difficulty", training, asked),
    )
    found = []
    for title, caption, quantities in drawn:
        measured = {name: {one: value for one, value in values.items() if value is not None} for name, values in quantities.items()}
        shown = {name: values for name, values in measured.items() if len(values) > 1}
        if shown:
            found.append(Figure(title, caption, plots.rounds_plot(shown)))
    return found


def _reward_plots(data: PageData) -> list[Figure]:
    found = []
    if data.reliability:
        caption = "Points on the dashed line are calibrated: of the pairs ordered with 80% confidence, 80% are right."
        found.append(Figure("Reliability", caption, plots.reliability_plot(data.reliability)))
    if data.length_gaps:
        caption = "Low bars on the left and high bars on the right mean that the reward model follows length."
        found.append(Figure("Accuracy by length gap", caption, plots.length_gap_plot(data.length_gaps)))
    return found


def _training_plots(data: PageData, series: Mapping[str, int | None]) -> list[Figure]:
    found = []
    curves = {name: points for name, points in data.curves.items() if points}
    if curves:
        caption = "Losses of different objectives are on different scales and cannot be compared."
        found.append(Figure("Learning curves", caption, plots.curves_plot(curves, series)))
    for name, updates in data.updates.items():
        if updates.entries:
            caption = (
                "If the score rises while the win rate falls or the length changes a lot, the policy exploits errors of the reward."
            )
            found.append(Figure(f"Updates of {name}", caption, updates_plot(updates.entries, series[name])))
    lengths = {name: tokens for name, tokens in data.lengths.items() if tokens}
    if lengths:
        caption = "Answers to the held-out prompts; the line is the median."
        found.append(Figure("Answer lengths", caption, plots.lengths_plot(lengths, series)))
    return found
