"""`RUN:STUDENT` as a run with one of its trained models."""

from dataclasses import dataclass
from pathlib import Path

from aligndistill.config.load import load_config
from aligndistill.config.problems import did_you_mean
from aligndistill.config.resolve import resolved
from aligndistill.config.run import RunConfig
from aligndistill.errors import DataError
from aligndistill.store.run_folder import finished_stages, split_name

STUDENT = "student-"


@dataclass(frozen=True)
class TrainedModel:
    """A student that a run has trained.

    Attributes:
        run: the run's folder.
        name: of the student.
        folder: its stage's folder, with `model.json` and `model/`.
        stages: the folders of the run's finished stages.
        config: the run's, as its user wrote it.
    """

    run: Path
    name: str
    folder: Path
    stages: dict[str, Path]
    config: RunConfig

    @property
    def full_config(self) -> RunConfig:
        """The config with what it implies spelled out."""
        return resolved(self.config)

    @property
    def author(self) -> str:
        """The model that it was trained from: the run's start, or its own."""
        own = self.config.own_start(self.name)
        return own if own in self.config.own_starts else "start"


def trained_model(text: str) -> TrainedModel:
    """The trained student that `RUN:STUDENT` names.

    Raises:
        DataError: there is no such run, or it has no such student yet; the message lists those that it has.
    """
    run, student = split_name(text)
    stages = finished_stages(run)
    trained = [name.removeprefix(STUDENT) for name in stages if name.startswith(STUDENT)]
    if student is None or student not in trained:
        has = f"Trained students: {', '.join(f'{run}:{name}' for name in trained)}." if trained else "It has trained none yet."
        missing = "name one of the run's students" if student is None else f"no student '{student}'{did_you_mean(student, trained)}"
        raise DataError(f"{text}: {missing}. {has}")
    return TrainedModel(run, student, stages[STUDENT + student], stages, load_config(run / "config.yaml"))
