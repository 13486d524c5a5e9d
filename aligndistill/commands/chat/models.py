"""Which model a person chats with: `RUN:STUDENT`, loaded as its run would."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aligndistill.config.load import load_config
from aligndistill.config.problems import did_you_mean
from aligndistill.config.run import RunConfig
from aligndistill.errors import DataError
from aligndistill.store.run_folder import ARTIFACTS, finished_stages, split_name

if TYPE_CHECKING:  # importing it loads torch, which takes seconds: only once the name is known to be right
    from aligndistill.models.load import LanguageModel

MODEL_FILE = "model.json"


@dataclass(frozen=True)
class Chosen:
    """A model of a run, and the folder of the stage that made it."""

    run: Path
    name: str
    folder: Path

    @property
    def config(self) -> RunConfig:
        """The config of its run."""
        return load_config(self.run / "config.yaml")

    def load(self) -> "LanguageModel":
        """Load it, with its layout, template and end tokens."""
        from aligndistill.models.load import load_language_model, read_pointer

        return load_language_model(read_pointer(self.folder))


def choose(text: str) -> Chosen:
    """The model that `RUN` or `RUN:STUDENT` names. Without a name it is the leading student, or the only one.

    Raises:
        DataError: there is no such run or model, or the run has several students and no report.
    """
    run, name = split_name(text)
    if not (run / ARTIFACTS).is_file():
        raise DataError(f"{run} is not a run's folder. Give RUN or RUN:STUDENT, such as runs/quickstart:dpo.")
    models = models_of_run(run)
    if not models:
        raise DataError(f"{run} has no finished model yet. Run its config at least `--until students`.")
    name = name or _leading(run, models)
    if name not in models:
        raise DataError(
            f"{run} has no model '{name}' that runs here{did_you_mean(name, models) or '.'} It has: {', '.join(models)}."
        )
    return Chosen(run, name, models[name])


def models_of_run(run: Path) -> dict[str, Path]:
    """The finished language models of a run that run here, students first, by their names."""
    stages = {name: folder for name, folder in finished_stages(run).items() if (folder / MODEL_FILE).is_file()}
    students = {name.removeprefix("student-"): folder for name, folder in stages.items() if name.startswith("student-")}
    others = {
        name.removeprefix("model-"): folder
        for name, folder in stages.items()
        if not name.startswith(("student-", "reward_model", "teacher_tokens"))
    }
    return {**students, **{name: folder for name, folder in others.items() if name not in students}}


def _leading(run: Path, models: dict[str, Path]) -> str:
    from aligndistill.reporting.report import leading_students, read_report

    if (run / "report.json").is_file():
        leading = next(iter(leading_students(read_report(run / "report.json"))), None)
        if leading in models:
            return str(leading)
    students = [name for name in models if f"student-{name}" in finished_stages(run)]
    if len(students) == 1:
        return students[0]
    raise DataError(f"say which model of {run}: {', '.join(f'{run}:{name}' for name in models)}.")
