"""One training run from its newest sound checkpoint to its end, whichever trainer does it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aligndistill.config.run import Runtime
from aligndistill.config.training import Training
from aligndistill.errors import Interrupted
from aligndistill.processes import signals
from aligndistill.processes.progress import bar, say
from aligndistill.training.checkpointing import origin_of
from aligndistill.training.checkpoints import newest_valid_checkpoint, require_same_shards


@dataclass(frozen=True)
class TrainingJob:
    """One training run, apart from what is trained.

    Attributes:
        name: shown on the bar and to trackers.
        folder: where checkpoints go.
    """

    name: str
    settings: Training
    runtime: Runtime
    folder: Path
    seed: int


@dataclass(frozen=True)
class Trained:
    """What came of it.

    Attributes:
        trainer: the trainer with the model in it, wherever its shards are.
        log: the log entries, one dict per `logging_steps`.
        seconds: time in training, resumed parts included.
    """

    trainer: Any
    log: list[dict[str, float]]
    seconds: float
    steps: int


def fit(trainer: Any, job: TrainingJob) -> Trained:
    """Train from the newest sound checkpoint, or from the start.

    Raises:
        Interrupted: somebody asked for a stop; a checkpoint was saved.
        DataError: the checkpoint cannot be taken up by so many processes.
    """
    signals.allow(job.runtime.grace_seconds)
    checkpoint = newest_valid_checkpoint(job.folder)
    if checkpoint is not None:
        require_same_shards(checkpoint, origin_of(trainer))
        say(f"  {job.name}: goes on from {checkpoint.name}")
    with bar(job.name) as running, signals.deferred():
        trainer.watch(running, job.runtime.save_total_limit)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if trainer.stopped_at is not None and trainer.state.global_step < trainer.state.max_steps:
            raise Interrupted(
                f"stopped by {signals.asked() or 'a signal to another process'}; saved {trainer.stopped_at}. "
                "The same command goes on from there."
            )
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    return Trained(trainer, log, trainer.seconds(), trainer.state.global_step)
