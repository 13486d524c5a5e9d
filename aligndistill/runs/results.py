"""A run as Python values: its report, its tables, and the models that it trained. Everything is read on first access."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aligndistill.config.load import load_config
from aligndistill.config.paths import at_home
from aligndistill.config.resolve import resolved
from aligndistill.config.run import RunConfig
from aligndistill.errors import DataError
from aligndistill.runs.tables import read_table
from aligndistill.store.run_folder import finished_stages

if TYPE_CHECKING:
    from pandas import DataFrame
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from aligndistill.reporting.report import Report, StudentMetrics
    from aligndistill.runs.comparison import ComparedRuns
    from aligndistill.runs.samples import Samples, Which

MODEL = "model"
"""The folder of the trained model in the folder of a training stage."""


@dataclass(frozen=True)
class TrainedStudent:
    """A student that a run has trained.

    Attributes:
        objective: the kind of objective that it was trained with, such as `dpo`.
        path: the folder that `from_pretrained` loads; adapters are merged, unless the start's `quantize` says otherwise.
        metrics: its metrics in the report; None if the run has no report yet.
    """

    name: str
    objective: str
    path: Path
    metrics: "StudentMetrics | None" = field(repr=False)

    def load(self, **options: Any) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
        """The model, in evaluation mode, and its tokenizer. Options (`device_map`, `dtype`) are passed to the model's
        `from_pretrained`, and `trust_remote_code` to both: a student of a start with code of its own needs it.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer  # only here: importing it takes seconds

        trusted = {name: value for name, value in options.items() if name == "trust_remote_code"}
        return AutoModelForCausalLM.from_pretrained(self.path, **options), AutoTokenizer.from_pretrained(self.path, **trusted)


@dataclass(frozen=True, eq=False)
class Run:
    """A run and its results so far.

    Attributes:
        folder: `<runs>/<name>`, with `report.html` once the run is complete.
        config: the config that was run.
        made: names of the stages that this call of `run` ran; empty if all were already finished.
        complete: whether it was run up to its report.
    """

    folder: Path
    config: RunConfig = field(repr=False)
    made: tuple[str, ...] = ()
    complete: bool = False

    @cached_property
    def stages(self) -> Mapping[str, Path]:
        """The folder of each finished stage, by its name.

        Raises:
            DataError: the run's folder or a stage's folder does not exist.
        """
        return finished_stages(self.folder)

    @cached_property
    def report(self) -> "Report":
        """The measurements: the content of `report.json`.

        Raises:
            DataError: the run is not complete.
        """
        from aligndistill.reporting.report import read_report

        if "report" not in self.stages:
            raise DataError(f"{self.folder}: this run has no report yet. Run its config without `until`.")
        return read_report(self.folder / "report.json")

    @cached_property
    def students(self) -> Mapping[str, TrainedStudent]:
        """The trained students by name, in the order of the config, with best-of-n if it was added."""
        measured = self.report.students if "report" in self.stages else {}
        students = resolved(self.config).students
        folders = {name: self.stages.get(f"student-{name}") for name in students}
        objectives = {name: student.objective.kind for name, student in students.items()}
        return {
            name: TrainedStudent(name, objectives[name], folder / MODEL, measured.get(name))
            for name, folder in folders.items()
            if folder is not None
        }

    @property
    def reward_model(self) -> Path | None:
        """The folder that `AutoModelForSequenceClassification.from_pretrained` loads; None if no reward model is trained."""
        folder = self.stages.get("reward_model")
        return folder / MODEL if folder is not None else None

    def table(self, name: str) -> "DataFrame":
        """One of the run's tables: `prompts`, `candidates`, `verdicts`, `rankings`, `answers` or `metrics` (docs/python.md).

        Raises:
            DataError: there is no such table, or its stage is not finished.
        """
        return read_table(name, self.folder, self.stages)

    def samples(self, which: "Which" = "all", student: str | None = None) -> "Samples":
        """Held-out answers of a student beside the start's: a view in a notebook, with `to_pandas`.

        Args:
            which: `worse` or `better` (lower or higher truth than the start's or, without truth, lost or won by the judge), the
                clearest first; `longer` or `shorter`; `same` text; `all`.
            student: by default the leading one.

        Raises:
            ConfigError: there is no such student, or `which` is unknown.
            DataError: the run has no evaluation yet.
        """
        from aligndistill.reporting.report import leading_students
        from aligndistill.runs.samples import samples

        name = student if student is not None else next(iter(leading_students(self.report)), next(iter(self.students), ""))
        return samples(self._evaluation, name, which)

    def compare(self, other: "Run | str | Path") -> "ComparedRuns":
        """This run beside another one: every model of both over the prompts that they share, as a view with `to_pandas`.

        Raises:
            DataError: one of them has no evaluation yet, or they share no held-out prompts.
        """
        from aligndistill.runs.comparison import comparison
        from aligndistill.runs.yardsticks import incomparable, yardsticks

        second = other if isinstance(other, Run) else open_run(other)
        excluded = incomparable([yardsticks(run.config, run.stages) for run in (self, second)])
        return comparison(f"{self.folder} -> {second.folder}", self._evaluation, second._evaluation, excluded)

    @property
    def _evaluation(self) -> Path:
        if "evaluation" not in self.stages:
            raise DataError(f"{self.folder}: this run has no evaluation yet. Run its config without `until`.")
        return self.stages["evaluation"]

    def _repr_html_(self) -> str:
        from aligndistill.reporting.notebook import run_html, unfinished_html

        if "report" not in self.stages:
            return unfinished_html(self.config.name, list(self.stages), str(self.folder))
        return run_html(self.report, str(self.folder))


def open_run(folder: str | Path) -> Run:
    """Open an existing run by its folder. Runs nothing.

    Raises:
        DataError: there is no run, or its results do not exist.
        ConfigError: this version cannot read its config.
    """
    folder = at_home(folder)
    stages = finished_stages(folder)
    return Run(folder, load_config(folder / "config.yaml"), complete="report" in stages)
