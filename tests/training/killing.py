"""What the tests of resuming share: trainings in child processes, some of which are killed.

A process ends by a real SIGKILL, which it sends to itself so that the place is exact. Children are forked before anything has been
computed, so that the imports are done once for all.
"""

import json
import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aligndistill.training import checkpointing

Prepare = Callable[[], None]
"""Called in a child before it trains: arranges for the kill."""


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def never() -> None:
    """Nothing happens."""


def in_step(step: int, micro_batch: int) -> Prepare:
    """Kill before this micro-batch of this step, both counted from 1."""

    def prepare() -> None:
        plain = checkpointing.CheckpointedTrainer.training_step
        seen: list[int] = []

        def training_step(self: Any, *args: Any, **kwargs: Any) -> Any:
            seen.append(self.state.global_step)
            if seen.count(step - 1) == micro_batch:
                kill()
            return plain(self, *args, **kwargs)

        checkpointing.CheckpointedTrainer.training_step = training_step  # type: ignore[method-assign]

    return prepare


def before_manifest(step: int) -> Prepare:
    """Kill when the files of this step's checkpoint are all written, but not its manifest."""

    def prepare() -> None:
        plain = checkpointing.write_manifest

        def write_manifest(checkpoint: Path, *origin: Any) -> None:
            if checkpoint.name == f"checkpoint-{step}":
                kill()
            plain(checkpoint, *origin)

        checkpointing.write_manifest = write_manifest

    return prepare


def in_a_child(train: Callable[..., None], *arguments: Any) -> int:
    """Train in a child process; its exit code, negative for the signal that killed it."""
    child = os.fork()
    if child == 0:
        try:
            train(*arguments)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def result(folder: Path) -> dict[str, Any]:
    """What a training wrote to result.json; its log without durations, which differ between runs."""
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    found["log"] = [{name: value for name, value in entry.items() if not name.endswith("seconds")} for entry in found["log"]]
    return found
