"""What is measured inside a side's process: the time of every optimiser step, losses, gradient norms, memory.

Runs in the peers' environments too.
"""

import time
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainerCallback
from transformers.trainer import DEFAULT_CALLBACKS

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident_bytes(peak: bool = False) -> int:
    """Resident memory of this process now, or its peak since `Memory` began (Linux)."""
    name = "VmHWM" if peak else "VmRSS"
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def now() -> float:
    """Seconds, read when a GPU has done all that it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class Memory:
    """Peak memory above what was taken when this was made: before the first model is loaded, imports done.

    On a GPU what torch's tensors take of it, else (or where `resident` is asked for) this process's resident memory.
    """

    def __init__(self, resident: bool = False) -> None:
        self._on_gpu = torch.cuda.is_available() and not resident
        if self._on_gpu:
            torch.cuda.init()  # without it there is no peak to reset
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
        else:
            CLEAR.write_text("5")  # resets the peak
            self._before = resident_bytes()

    def added_bytes(self) -> int:
        """The peak so far."""
        return (torch.cuda.max_memory_allocated() if self._on_gpu else resident_bytes(peak=True)) - self._before


class Clock:
    """When optimiser steps ended, and what the trainer logged; `start` is when training began."""

    start: ClassVar[float] = 0.0
    ends: ClassVar[list[float]] = []
    log: ClassVar[list[dict[str, float]]] = []

    @classmethod
    def reset(cls) -> None:
        """Forget an earlier round."""
        cls.start, cls.ends, cls.log = now(), [], []

    @classmethod
    def seconds(cls, warm_up: int, every: int = 1) -> list[float]:
        """Seconds of each step (or of each `every` steps) after the first `warm_up`."""
        ends = [cls.start, *cls.ends[every - 1 :: every]]
        return [after - before for before, after in zip(ends[warm_up:-1], ends[warm_up + 1 :], strict=True)]


class StepCallback(TrainerCallback):
    """Tells the `Clock`."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        Clock.start = now()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        Clock.ends.append(now())

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        Clock.log.append(dict(logs or {}))


def watch_every_trainer() -> None:
    """Give every transformers Trainer of this process the callback, and have it read its data in the order of the file."""
    DEFAULT_CALLBACKS.append(StepCallback)
    Trainer._get_train_sampler = lambda self, dataset=None: SequentialSampler(dataset or self.train_dataset)  # type: ignore


def logged(name: str) -> list[float]:
    """One figure of every log entry that has it."""
    return [float(entry[name]) for entry in Clock.log if name in entry]


def training_round(warm_up: int, memory: Memory, samples_per_step: int, every: int = 1, **more: Any) -> dict[str, Any]:
    """The result of a round that was one training."""
    return {
        "seconds": Clock.seconds(warm_up, every),
        "samples": samples_per_step,
        "added_bytes": memory.added_bytes(),
        "losses": logged("loss"),
        "gradient_norms": logged("grad_norm"),
        **more,
    }
