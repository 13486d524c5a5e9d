"""A stage as a value: its name, what makes it, what it depends on. Whether it is done, the store knows."""

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from aligndistill.chat.protocol import ChatModel
from aligndistill.config import EndpointModel, Runtime
from aligndistill.errors import DataError, TrainingError
from aligndistill.progress import say
from aligndistill.store.artifacts import (
    MANIFEST,
    SCRATCH,
    Manifest,
    find_damage,
    fingerprint,
    finish,
    locked,
    read_manifest,
    set_aside,
)
from aligndistill.training import roll_call
from aligndistill.training.distributed import is_main_process, local_ranks, world_size
from aligndistill.training.watched import means_no_memory

SECONDS_BETWEEN_LOOKS = 0.5


@dataclass(frozen=True)
class Work:
    """What a stage's maker is given.

    Attributes:
        folder: where the result goes. It may hold what an interrupted run left.
        inputs: the finished folders it depends on, by name.
        identities: the fingerprint of each input.
        caches: a folder for what is kept by content hash, across stages and runs.
        open_endpoint: what stands for a server; None connects to it.
    """

    folder: Path
    inputs: Mapping[str, Path]
    identities: Mapping[str, str]
    caches: Path
    runtime: Runtime
    seed: int
    open_endpoint: Callable[[EndpointModel], ChatModel] | None = None

    @property
    def scratch(self) -> Path:
        """A folder for what is needed only until the stage is finished."""
        path = self.folder / SCRATCH
        path.mkdir(parents=True, exist_ok=True)
        return path


@dataclass(frozen=True)
class Made:
    """What a maker reports: records in and out, records dropped by reason, figures measured."""

    counts: Mapping[str, int] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """One step of a run.

    Attributes:
        name: what it makes, a noun; students carry theirs behind a dash.
        make: called as `make(work, *settings)`; writes the result into `work.folder`.
        settings: what changes the result besides the inputs; hashed.
        inputs: the stages it reads from.
        version: raised when `make` would give another result for the same settings.
        all_processes: whether every process of a distributed run takes part (training, local models that write or judge), or only
            the first.
        after: stages that must be finished before, though nothing is read from them: what they find may stop the run.
    """

    name: str
    make: Callable[..., Made]
    settings: tuple[Any, ...]
    inputs: Mapping[str, "Stage"]
    seed: int
    version: int = 1
    all_processes: bool = False
    after: tuple["Stage", ...] = ()

    @cached_property
    def fingerprint(self) -> str:
        """What the result depends on, as a hash."""
        inputs = {name: stage.fingerprint for name, stage in self.inputs.items()}
        return fingerprint(self.name.partition("-")[0], self.version, (*self.settings, self.seed), inputs)

    def folder(self, store: Path) -> Path:
        """Where the result is, or will be."""
        return store / f"{self.name}-{self.fingerprint}"


def set_damaged_aside(stages: Sequence[Stage], store: Path) -> None:
    """Compare what the unfinished stages will read with its manifests, and move what is damaged away: it is unfinished then.

    For the first process alone, while no other has begun: a stage that is made again may need all of them.
    """
    found = True
    while found:  # what is made again has inputs, too
        found = False
        missing = [stage for stage in stages if read_manifest(stage.folder(store)) is None]
        for folder in {needed.folder(store) for stage in missing for needed in stage.inputs.values()}:
            damage = find_damage(folder)
            if damage is not None:
                found = True
                say(f"  {folder} is damaged ({damage}); moved to {set_aside(folder).name} and made again")


def run_stage(stage: Stage, runtime: Runtime, open_endpoint: Callable[[EndpointModel], ChatModel] | None = None) -> Manifest:
    """Make a stage unless it is finished; its inputs are. `open_endpoint` opens the servers that it asks.

    Raises:
        UserError: whatever its maker found wrong; what it had done so far is kept.
    """
    folder = stage.folder(runtime.store)
    manifest = read_manifest(folder)
    if manifest is not None:
        return manifest
    if is_main_process():
        return _make(stage, runtime, folder, open_endpoint)
    if stage.all_processes and _is_begun(folder):
        return _make(stage, runtime, folder, open_endpoint)
    return _wait_for(folder)


def work_of(stage: Stage, runtime: Runtime) -> Work:
    """What the stage's maker is given; its inputs need to be finished only when they are read."""
    return Work(
        folder=stage.folder(runtime.store),
        inputs={name: needed.folder(runtime.store) for name, needed in stage.inputs.items()},
        identities={name: needed.fingerprint for name, needed in stage.inputs.items()},
        caches=_caches(runtime.store),
        runtime=runtime,
        seed=stage.seed,
    )


def _make(stage: Stage, runtime: Runtime, folder: Path, open_endpoint: Callable[[EndpointModel], ChatModel] | None) -> Manifest:
    if is_main_process():
        if (folder / MANIFEST).exists():
            say(f"  {folder} is damaged; moved to {set_aside(folder).name} and made again")
        say(f"{stage.name}")
    with locked(folder) if is_main_process() else nullcontext():
        if is_main_process():
            say_to_others(_begun(folder))
        work = replace(work_of(stage, runtime), open_endpoint=open_endpoint)
        started = time.monotonic()
        made = _with_memory(stage, work)
        if not is_main_process():
            return _wait_for(folder)
        return finish(
            folder,
            stage=stage.name,
            stage_fingerprint=stage.fingerprint,
            counts=made.counts,
            dropped=made.dropped,
            figures=made.figures,
            wall_seconds=time.monotonic() - started,
        )


def _with_memory(stage: Stage, work: Work) -> Made:
    """Call the stage's maker. A training step that finds no memory has said so itself; this is for sampling and scoring."""
    try:
        return stage.make(work, *stage.settings)
    except (RuntimeError, MemoryError) as error:
        if not means_no_memory(error):
            raise
        raise TrainingError(
            f"out of memory in the stage {stage.name}. Lower runtime.per_device_eval_batch_size, which is "
            f"{work.runtime.per_device_eval_batch_size}, for sampling and scoring. The same command goes on: what was done is kept."
        ) from error


def say_to_others(words: str) -> None:
    """Let the other processes of the run know how far this one is."""
    present = roll_call.here()
    if present is not None:
        present.say(words)


def wait_for_others(words: str, ranks: range | None = None) -> None:
    """Say so, and wait until all processes (or these) have said so, too."""
    present = roll_call.here()
    if present is not None:
        present.say(words)
        present.wait_for(ranks or range(world_size()), words)


def _begun(folder: Path) -> str:
    return f"{folder.name} is begun"


def _is_begun(folder: Path) -> bool:
    """Wait for the first process to begin a stage, or to find it finished. A damaged folder is out of the way then."""
    present = roll_call.here()
    assert present is not None
    while not present.has_said(0, _begun(folder)):
        if read_manifest(folder) is not None:
            return False
        time.sleep(SECONDS_BETWEEN_LOOKS)
    return True


def _caches(store: Path) -> Path:
    """SQLite is not safe on a disk that several machines write to, so each machine has its own."""
    return store / "caches" / socket.gethostname() if len(local_ranks()) < world_size() else store / "caches"


def _wait_for(folder: Path) -> Manifest:
    """Look until the first process has finished the stage. No collective is open meanwhile, so none can time out, and the roll call
    ends this process where that one failed, died or froze.
    """
    while (manifest := read_manifest(folder)) is None:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    return manifest


def require_records(count: int, what: str, dropped: Mapping[str, int]) -> None:
    """Refuse to go on with nothing.

    Raises:
        DataError: there are none; it says what was dropped and why.
    """
    if count == 0:
        reasons = ", ".join(f"{number} {reason}" for reason, number in dropped.items() if number) or "nothing"
        raise DataError(f"no {what} are left. Dropped: {reasons}. Change the data, or the limits and margins that drop it.")
