"""Checkpointing for every trainer: verified checkpoints, one more when the run is asked to stop, an error if a loss is not finite
or memory runs out, progress, and a log that a resumed run continues exactly.
"""

import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PrinterCallback, TrainerCallback

from aligndistill.errors import TrainingError
from aligndistill.processes import signals
from aligndistill.processes.memory_errors import is_out_of_memory
from aligndistill.processes.progress import Bar
from aligndistill.training.checkpoints import CheckpointOrigin, keep_newest, write_manifest
from aligndistill.training.elastic import after_loading

UNLOGGED = "unlogged.json"
"""A file in a checkpoint: the running sums of each process for the next log entry."""


class CheckpointedTrainer:
    """A mixin for a `transformers.Trainer`; it comes first in the list of bases.

    `watch` must be called once before `train`.
    """

    args: Any
    state: Any
    control: Any
    model: Any
    accelerator: Any
    _tr_loss: Tensor
    _globalstep_last_logged: int
    stops_every: int = 1
    """Training can be resumed after every so many steps, and ends there when it is asked to stop."""

    def watch(self, bar: Bar, keep_checkpoints: int) -> None:
        """Report progress to this bar, and keep this many checkpoints."""
        self._bar = bar
        self._keep_checkpoints = keep_checkpoints
        self._first_bad_step: Tensor | None = None
        self._metrics_seen: dict[str, Tensor] = {}
        self._started = time.monotonic()
        self._seconds_before = 0.0
        self.stopped_at: Path | None = None
        self.remove_callback(PrinterCallback)  # type: ignore[attr-defined]
        self.add_callback(_Steps(self, bar))  # type: ignore[attr-defined]

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        # transformers checks for the end only after a step: resumed from the last checkpoint, it would take one step too many.
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*args, **kwargs)  # type: ignore[misc]

    def _prepare_input(self, data: Any) -> Any:
        # Under DeepSpeed transformers casts floats to the model's dtype. Ours are no inputs of the model: in bfloat16 a reference's
        # log-probability of -150 nats would be off by up to half a nat.
        if isinstance(data, Tensor):
            return data.to(self.args.device)
        return super()._prepare_input(data)  # type: ignore[misc]

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Run one micro-batch. Records the first step whose loss was not finite, without waiting for the device."""
        try:
            loss: Tensor = super().training_step(*args, **kwargs)  # type: ignore[misc]
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                raise TrainingError(self._no_memory()) from error
            raise
        if self._first_bad_step is None:
            self._first_bad_step = torch.zeros((), dtype=torch.long, device=loss.device)
        bad_now = ~torch.isfinite(loss) & (self._first_bad_step == 0)
        self._first_bad_step = torch.where(bad_now, self.state.global_step + 1, self._first_bad_step)
        return loss

    def count_metrics(self, metrics: dict[str, Tensor]) -> None:
        """Add a micro-batch's metrics, one number per prompt or token, to the next log entry. Those with nan are skipped."""
        for name, values in metrics.items():
            sum_and_count = torch.stack([values.float().nansum(), (~values.isnan()).sum().float()])
            self._metrics_seen[name] = self._metrics_seen.get(name, torch.zeros_like(sum_and_count)) + sum_and_count

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the means since the last entry, and the seconds trained so far, including those before a resume."""
        self._require_finite()
        for name, seen in self._metrics_seen.items():
            total, count = self.accelerator.reduce(seen, reduction="sum").tolist()
            if count:
                logs[name] = total / count
        self._metrics_seen = {}
        logs["seconds"] = self.seconds()
        if "loss" in logs:
            self._bar.set(self.state.global_step, note=f"loss {logs['loss']:.3f}")
        super().log(logs, start_time)  # type: ignore[misc]

    def seconds(self) -> float:
        """Seconds trained, including those before a resume, up to the checkpoint."""
        return self._seconds_before + time.monotonic() - self._started

    def begin(self) -> None:
        """Start the clock. If training resumes from a checkpoint, its log has the seconds before."""
        entries = [entry["seconds"] for entry in self.state.log_history if "seconds" in entry]
        self._seconds_before = entries[-1] if entries else 0.0
        self._started = time.monotonic()
        after_loading(self)
        checkpoint = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        if self.state.global_step and (checkpoint / UNLOGGED).is_file():
            self._resume_log(json.loads((checkpoint / UNLOGGED).read_text()))

    def stop_is_due(self) -> bool:
        """Whether any process was asked to stop, and training can be resumed from this step."""
        if self.state.global_step % self.stops_every:
            return False
        asked = torch.tensor(int(signals.asked() is not None), device=self.args.device)
        return bool(self.accelerator.gather(asked).max())

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self._require_finite(weights=True)
        super()._save_checkpoint(model, trial)  # type: ignore[misc]
        unlogged = self._unlogged()
        self.accelerator.wait_for_everyone()
        checkpoint = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            (checkpoint / UNLOGGED).write_text(json.dumps(unlogged))
            write_manifest(checkpoint, origin_of(self))
            keep_newest(checkpoint, self._keep_checkpoints)
        self.accelerator.wait_for_everyone()

    def _unlogged(self) -> dict[str, Any]:
        """The running sums of the log, of every process: (values,) of the loss and (sum, count) of each metric."""
        metrics = {name: self.accelerator.gather(seen).reshape(-1, 2).tolist() for name, seen in self._metrics_seen.items()}
        loss = self.accelerator.gather(self._tr_loss).reshape(-1).tolist()
        return {"since": self._globalstep_last_logged, "loss": loss, "metrics": metrics}

    def _resume_log(self, unlogged: dict[str, Any]) -> None:
        loss, here = unlogged["loss"], self.accelerator.process_index
        self._globalstep_last_logged = unlogged["since"]
        if len(loss) == self.accelerator.num_processes:
            self._tr_loss += loss[here]
            self._metrics_seen = {n: torch.tensor(rows[here], device=self.args.device) for n, rows in unlogged["metrics"].items()}
        else:  # another number of processes than before: use the mean of the losses, and give rank 0 all sums
            self._tr_loss += sum(loss) / len(loss)
            for name, rows in unlogged["metrics"].items():
                total = torch.tensor(rows, device=self.args.device).sum(0)
                self._metrics_seen[name] = total if here == 0 else torch.zeros_like(total)

    def _no_memory(self) -> str:
        size = self.args.per_device_train_batch_size
        smaller = (
            f"Set runtime.per_device_train_batch_size to {size // 2}: the same step in more micro-batches, with the same gradient."
            if size > 1
            else "Set runtime.gradient_checkpointing: true, a file of configs/deepspeed/ that shards more or offloads to the host, "
            "smaller max_prompt_tokens or max_response_tokens, or lora."
        )
        return (
            f"out of memory in step {self.state.global_step + 1} of {self.state.max_steps}, with {size} prompts per micro-batch on "
            f"each of {self.accelerator.num_processes} processes. {smaller} "
            "Run the same command again to resume from the last checkpoint."
        )

    def _require_finite(self, weights: bool = False) -> None:
        """Stop all processes if one of them had a loss that is not finite. With `weights`, also check the weights, which the last
        gradient may have changed.
        """
        bad_step = torch.zeros((), dtype=torch.long, device=self.args.device)
        if self._first_bad_step is not None:
            bad_step = self._first_bad_step
        if weights:
            finite = torch.stack([parameter.isfinite().all() for parameter in map(_local_shard, self.model.parameters())]).all()
            bad_step = torch.where(~finite & (bad_step == 0), self.state.global_step, bad_step)
        step = int(self.accelerator.gather(bad_step).max())
        if step:
            raise TrainingError(
                f"the loss or its gradient was not finite at step {step} of {self.state.max_steps}. The last good "
                f"checkpoint is kept in {self.args.output_dir}. Lower learning_rate or max_grad_norm, or check the data of "
                "that step."
            )


class _Steps(TrainerCallback):  # type: ignore[misc]
    """Updates the bar, and logs at every checkpoint, so that a resumed log equals an uninterrupted one."""

    def __init__(self, trainer: CheckpointedTrainer, bar: Bar) -> None:
        self._trainer, self._bar = trainer, bar

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called after the state is loaded."""
        self._trainer.begin()
        self._bar.expect(state.max_steps)
        self._bar.resume(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called after an optimiser step."""
        self._bar.set(state.global_step)
        if state.global_step % args.save_steps == 0:
            control.should_log = True
        if self._trainer.stop_is_due():
            control.should_save = control.should_training_stop = True
            self._trainer.stopped_at = Path(args.output_dir) / f"checkpoint-{state.global_step}"


def origin_of(trainer: Any) -> CheckpointOrigin:
    """The number of processes and the ZeRO stage of a trainer: a checkpoint's files depend on them."""
    plugin = getattr(trainer.accelerator.state, "deepspeed_plugin", None)
    return CheckpointOrigin(trainer.accelerator.num_processes, plugin.zero_stage if plugin else None)


def _local_shard(parameter: Tensor) -> Tensor:
    """A parameter, or this process's shard of it under ZeRO-3."""
    shard: Tensor = getattr(parameter, "ds_tensor", parameter)
    return shard
