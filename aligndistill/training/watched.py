"""What every training run of ours gets, whichever trainer does it: sealed checkpoints, a stop at a loss that is not finite,
progress, and a log that goes on where a resumed run left off.
"""

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PrinterCallback, TrainerCallback

from aligndistill.errors import TrainingError
from aligndistill.progress import Bar
from aligndistill.training.checkpoints import keep_newest, seal


class Watched:
    """To be mixed into a `transformers.Trainer` (before it, in the list of bases).

    `watch` must be called once before `train`.
    """

    args: Any
    state: Any
    control: Any
    model: Any
    accelerator: Any

    def watch(self, bar: Bar, keep_checkpoints: int) -> None:
        """Report to this bar, and keep so many checkpoints."""
        self._bar = bar
        self._keep_checkpoints = keep_checkpoints
        self._first_bad_step: Tensor | None = None
        self._metrics_seen: dict[str, Tensor] = {}
        self._started = time.monotonic()
        self._seconds_before = 0.0
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
        loss: Tensor = super().training_step(*args, **kwargs)  # type: ignore[misc]
        if self._first_bad_step is None:
            self._first_bad_step = torch.zeros((), dtype=torch.long, device=loss.device)
        bad_now = ~torch.isfinite(loss) & (self._first_bad_step == 0)
        self._first_bad_step = torch.where(bad_now, self.state.global_step + 1, self._first_bad_step)
        return loss

    def count_metrics(self, metrics: dict[str, Tensor]) -> None:
        """Add a micro-batch's figures to the means of the next log entry; nan means that it had none."""
        for name, value in metrics.items():
            sum_and_count = torch.stack([value.nan_to_num(), (~value.isnan()).to(value.dtype)])
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

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self._require_finite(weights=True)
        super()._save_checkpoint(model, trial)  # type: ignore[misc]
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            checkpoint = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            seal(checkpoint)
            keep_newest(checkpoint, self._keep_checkpoints)
        self.accelerator.wait_for_everyone()

    def _require_finite(self, weights: bool = False) -> None:
        """Stop all processes together when one of them saw a bad loss. `weights`: a last gradient may have spoilt those alone."""
        bad_step = torch.zeros((), dtype=torch.long, device=self.args.device)
        if self._first_bad_step is not None:
            bad_step = self._first_bad_step
        if weights:
            finite = torch.stack([parameter.isfinite().all() for parameter in self.model.parameters()]).all()
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

    def __init__(self, watched: Watched, bar: Bar) -> None:
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
