"""One training run from its newest valid checkpoint to its end, for every trainer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aligndistill.config.run import Runtime
from aligndistill.config.training import Training
from aligndistill.errors import ConfigError, Interrupted
from aligndistill.processes import signals
from aligndistill.processes.progress import bar, say
from aligndistill.training.checkpointing import origin_of
from aligndistill.training.checkpoints import newest_valid_checkpoint, require_usable_shards
from aligndistill.training.elastic import converted
from aligndistill.training.frozen import zero3_config


@dataclass(frozen=True)
class TrainingJob:
    """The settings of one training run.

    Attributes:
        name: shown on the progress bar and in trackers.
        folder: the folder of checkpoints.
    """

    name: str
    settings: Training
    runtime: Runtime
    folder: Path
    seed: int


@dataclass(frozen=True)
class Trained:
    """The result of a training run.

    Attributes:
        trainer: the trainer with the model, which may be sharded.
        log: the log entries, one dict per `logging_steps`.
        seconds: training time, including that before a resume.
    """

    trainer: Any
    log: list[dict[str, float]]
    seconds: float
    steps: int


def fit(trainer: Any, job: TrainingJob) -> Trained:
    """Train from the newest valid checkpoint, or from step 0.

    Raises:
        Interrupted: a stop was requested; a checkpoint was saved.
        DataError: the checkpoint cannot be resumed with this number of processes.
        ConfigError: the model is quantised, and DeepSpeed's file asks for ZeRO-3.
    """
    require_whole_bytes(trainer)
    signals.allow(job.runtime.grace_seconds)
    checkpoint = newest_valid_checkpoint(job.folder)
    if checkpoint is not None:
        other_processes = require_usable_shards(checkpoint, origin_of(trainer))
        say(f"  {job.name}: resuming from {checkpoint.name}")
        if other_processes:
            checkpoint = converted(checkpoint, trainer)
    with bar(job.name) as running, signals.deferred():
        trainer.watch(running, job.runtime.save_total_limit)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if trainer.stopped_at is not None and trainer.state.global_step < trainer.state.max_steps:
            raise Interrupted(
                f"stopped by {signals.asked() or 'a signal to another process'}; saved {trainer.stopped_at}. "
                "Run the same command again to resume."
            )
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    return Trained(trainer, log, trainer.seconds(), trainer.state.global_step)


def require_whole_bytes(trainer: Any) -> None:
    """Refuse a quantised model under ZeRO-3, which would shard packed bytes as if they were weights.

    The config's checks refuse the names of ours in `runtime.deepspeed`; this refuses files.

    Raises:
        ConfigError: the trainer's model is quantised, and DeepSpeed's config asks for ZeRO-3.
    """
    if zero3_config(trainer.accelerator) is None:
        return
    if any(not parameter.is_floating_point() for parameter in trainer.model.parameters()):
        raise ConfigError(
            "ZeRO-3 cannot shard quantised weights: set runtime.deepspeed to zero1 or zero2, or remove start.quantize."
        )
