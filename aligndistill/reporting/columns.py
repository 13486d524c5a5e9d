"""The columns of the tables of models, on the page and in the terminal."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from aligndistill.evaluation.intervals import Mean
from aligndistill.reporting.report import ModelMetrics, Report


@dataclass(frozen=True)
class Column:
    """A metric of a model.

    Attributes:
        key: the field of the report's metrics, with dots where it is inside another.
        title: its short name.
        meaning: what it is, with its unit.
        is_win_rate: whether it is a probability of winning, for which one half means no difference.
        between_0_and_1: whether it is another share.
    """

    key: str
    title: str
    meaning: str
    is_win_rate: bool = False
    between_0_and_1: bool = False

    @property
    def is_share(self) -> bool:
        """Whether it is between 0 and 1; its axis is, too. A win rate is."""
        return self.is_win_rate or self.between_0_and_1

    def value(self, metrics: ModelMetrics) -> Mean | float | None:
        """The metric of a model; None if it was not measured or has no meaning (the start's win rate against itself)."""
        value: Any = metrics
        for name in self.key.split("."):
            value = getattr(value, name, None)
        return cast("Mean | float | None", value)


COLUMNS = (
    Column("truth", "truth", "score by the truth function, which training never saw"),
    Column(
        "win_rate",
        "win rate",
        "how often the judge prefers the answer over the start's",
        is_win_rate=True,
    ),
    Column(
        "win_rate_lc",
        "LC",
        "the win rate estimated for answers of equal length (length-controlled)",
        is_win_rate=True,
    ),
    Column(
        "win_rate_style",
        "style",
        "the win rate estimated for answers of equal length and style (headers, list items, bold text)",
        is_win_rate=True,
    ),
    Column(
        "win_rate_teacher",
        "vs teacher",
        "how often the judge prefers the answer over the teacher's",
        is_win_rate=True,
    ),
    Column("win_rate_own", "vs own", "how often the judge prefers the answer over the student's own start's", is_win_rate=True),
    Column("kl_nats", "KL", "nats per response, from the start that the student was trained from"),
    Column(
        "fidelity.agreement",
        "as teacher",
        "share of the teacher's tokens that the model, too, finds likeliest",
        between_0_and_1=True,
    ),
    Column("fidelity.kl_forward", "KL teacher", "KL(teacher || model) on the teacher's answers, nats per token"),
    Column("fidelity.own.kl_reverse", "KL own", "KL(model || teacher) on the model's own answers, nats per token"),
    Column("quantized.truth", "int8 truth", "truth of the model's copy with linear layers in 8 bits"),
    Column("quantized.win_rate", "int8 win rate", "win rate of that copy", is_win_rate=True),
    Column(
        "quantized.fidelity.agreement",
        "int8 same",
        "share of the model's own tokens that the copy, too, finds likeliest",
        between_0_and_1=True,
    ),
    Column("quantized.fidelity.kl_forward", "int8 KL", "KL(model || copy) on the model's own answers, nats per token"),
    Column("length_tokens", "length", "tokens per answer"),
    Column("reward", "reward", "score by the reward model"),
    Column("distinct_2", "distinct-2", "distinct bigrams over all bigrams of all answers"),
    Column("repetition_4", "repetition-4", "share of an answer's 4-grams that repeat an earlier one", between_0_and_1=True),
)


def authors_of(report: Report) -> dict[str, ModelMetrics]:
    """The rows: the starts, the teacher where there is one, the students in the order of the config."""
    teacher = {} if report.teacher is None else {"teacher": report.teacher}
    return {"start": report.start, **report.starts, **teacher, **report.students}


def measured(columns: Sequence[Column], models: Sequence[ModelMetrics]) -> list[Column]:
    """The columns with a value for at least one model."""
    return [column for column in columns if any(column.value(metrics) is not None for metrics in models)]
