"""What every training run of ours gets, whichever trainer does it: sealed checkpoints, one more when it is asked to stop, an end
where a loss is not finite or memory runs out, progress, and a log that goes on where a resumed run left off.
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
from aligndistill.processes.memory_errors import means_no_memory
from aligndistill.processes.progress import Bar
from aligndistill.training.checkpoints import CheckpointOrigin, keep_newest, write_manifest

UNLOGGED = "unlogged.json"
"""In a checkpoint: what each process had summed up for the next log entry."""


class CheckpointedTrainer:
    """To be mixed into a `transformers.Trainer` (before it, in the list of bases).

    `watch` must be called once before `train`.
    """

    args: Any
    state: Any
    control: Any
    model: Any
    accelerator: Any
    _tr_loss: Tensor
    _globalstep_last_logged: int
    stops_after_any_step = False
    """Whether training may be taken up again after any step, and not only where checkpoints are due."""

    def watch(self, bar: Bar, keep_checkpoints: int) -> None:
        """Report to this bar, and keep so many checkpoints."""
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
        # transformers looks whether it is done after a step only: resumed from its last checkpoint, it would take one step more.
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*args, **kwargs)  # type: ignore[misc]

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """One micro-batch; remembers, without waiting for the device, the first step whose loss was not finite."""
        try:
            loss: Tensor = super().training_step(*args, **kwargs)  # type: ignore[misc]
        except (RuntimeError, MemoryError) as error:
            if means_no_memory(error):
                raise TrainingError(self._no_memory()) from error
            raise
        if self._first_bad_step is None:
            self._first_bad_step = torch.zeros((), dtype=torch.long, device=loss.device)
        bad_now = ~torch.isfinite(loss) & (self._first_bad_step == 0)
        self._first_bad_step = torch.where(bad_now, self.state.global_step + 1, self._first_bad_step)
        return loss

    def count_metrics(self, metrics: dict[str, Tensor]) -> None:
        """Add a micro-batch's figures, one for each prompt, to those of the next log entry; a prompt with nan has none."""
        for name, values in metrics.items():
            sum_and_count = torch.stack([values.float().nansum(), (~values.isnan()).sum().float()])
            self._metrics_seen[name] = self._metrics_seen.get(name, torch.zeros_like(sum_and_count)) + sum_and_count

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the means since the last entry, and the seconds trained so far, resumed runs included."""
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
        """Seconds trained, those before a kill included (as far as its checkpoint knew)."""
        return self._seconds_before + time.monotonic() - self._started

    def begin(self) -> None:
        """Training begins, perhaps from a checkpoint: its log says how long it had taken."""
        entries = [entry["seconds"] for entry in self.state.log_history if "seconds" in entry]
        self._seconds_before = entries[-1] if entries else 0.0
        self._started = time.monotonic()
        checkpoint = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        if self.state.global_step and (checkpoint / UNLOGGED).is_file():
            self._resume_log(json.loads((checkpoint / UNLOGGED).read_text()))

    def stop_is_due(self) -> bool:
        """Whether any process was asked to stop, and training can be taken up again from here."""
        if not (self.stops_after_any_step or self.control.should_save):
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
        """The running sums of the log, of every process: (values,) of the loss and (sum, count) of each figure."""
        metrics = {name: self.accelerator.gather(seen).reshape(-1, 2).tolist() for name, seen in self._metrics_seen.items()}
        loss = self.accelerator.gather(self._tr_loss).reshape(-1).tolist()
        return {"since": self._globalstep_last_logged, "loss": loss, "metrics": metrics}

    def _resume_log(self, unlogged: dict[str, Any]) -> None:
        loss, here = unlogged["loss"], self.accelerator.process_index
        self._globalstep_last_logged = unlogged["since"]
        if len(loss) == self.accelerator.num_processes:
            self._tr_loss += loss[here]
            self._metrics_seen = {n: torch.tensor(rows[here], device=self.args.device) for n, rows in unlogged["metrics"].items()}
        else:  # other processes than before: their mean, and the sums of the first
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
            f"each of {self.accelerator.num_processes} processes. {smaller} The same command goes on from the last checkpoint."
        )

    def _require_finite(self, weights: bool = False) -> None:
        """Stop all processes together when one of them saw a bad loss. `weights`: a last gradient may have spoilt those alone."""
        bad_step = torch.zeros((), dtype=torch.long, device=self.args.device)
        if self._first_bad_step is not None:
            bad_step = self._first_bad_step
        if weights:
            finite = torch.stack([parameter.isfinite().all() for parameter in map(_held_here, self.model.parameters())]).all()
            bad_step = torch.where(~finite & (bad_step == 0), self.state.global_step, bad_step)
        step = int(self.accelerator.gather(bad_step).max())
        if step:
            raise TrainingError(
                f"the loss was not finite at step {step} of {self.state.max_steps} (or its gradient was not). The last good "
                f"checkpoint is kept in {self.args.output_dir}. Lower learning_rate or max_grad_norm, or look at the data of "
                "that step."
            )


class _Steps(TrainerCallback):  # type: ignore[misc]
    """Moves the bar, and logs whenever a checkpoint is due, so that a resumed log equals an uninterrupted one."""

    def __init__(self, watched: CheckpointedTrainer, bar: Bar) -> None:
        self._watched, self._bar = watched, bar

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The state is loaded by now."""
        self._watched.begin()
        self._bar.expect(state.max_steps)
        self._bar.set(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """One optimiser step is done."""
        self._bar.set(state.global_step)
        if state.global_step % args.save_steps == 0:
            control.should_log = True
        if self._watched.stop_is_due():
            control.should_save = control.should_training_stop = True
            self._watched.stopped_at = Path(args.output_dir) / f"checkpoint-{state.global_step}"


def origin_of(trainer: Any) -> CheckpointOrigin:
    """What a checkpoint's files depend on besides the step: how many processes share it, and how."""
    plugin = getattr(trainer.accelerator.state, "deepspeed_plugin", None)
    return CheckpointOrigin(trainer.accelerator.num_processes, plugin.zero_stage if plugin else None)


def _held_here(parameter: Tensor) -> Tensor:
    """A parameter, or this process's shard of it under ZeRO-3."""
    shard: Tensor = getattr(parameter, "ds_tensor", parameter)
    return shard
