"""Make one stage, with all processes of the run."""

import socket
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from aligndistill.chat.protocol import ChatModel
from aligndistill.config.models import EndpointModel
from aligndistill.config.run import Runtime
from aligndistill.errors import TrainingError
from aligndistill.processes import monitor
from aligndistill.processes.memory_errors import means_no_memory
from aligndistill.processes.monitor import say_to_others
from aligndistill.processes.progress import say
from aligndistill.processes.ranks import is_main_process, local_ranks, world_size
from aligndistill.stages.context import StageContext
from aligndistill.store.artifacts import MANIFEST, Manifest, find_damage, finish, locked, move_aside, read_manifest
from aligndistill.store.stage import Stage, StageResult, with_folders

POLL_SECONDS = 0.5


def move_damaged_aside(stages: Sequence[Stage], store: Path) -> None:
    """Compare what the unfinished stages will read with its manifests, and move what is damaged away: it is unfinished then.

    For the first process alone, while no other has started: a stage that is rebuilt may need all of them.
    """
    found = True
    while found:  # what is rebuilt has inputs, too
        found = False
        missing = [stage for stage in stages if read_manifest(stage.folder(store)) is None]
        for folder in {needed.folder(store) for stage in missing for needed in stage.inputs}:
            damage = find_damage(folder)
            if damage is not None:
                found = True
                say(f"  {folder} is damaged ({damage}); moved to {move_aside(folder).name} and rebuilt")


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
    if stage.together and _is_begun(folder):
        return _make(stage, runtime, folder, open_endpoint)
    return _wait_for(folder)


def context_of(stage: Stage, runtime: Runtime) -> StageContext:
    """Where a stage works; its inputs need to be finished only when they are read."""
    return StageContext(
        name=stage.name,
        folder=stage.folder(runtime.store),
        caches=_caches(runtime.store),
        runtime=runtime,
        identities={needed.folder(runtime.store): needed.fingerprint for needed in stage.inputs},
    )


def arguments_of(stage: Stage, runtime: Runtime) -> dict[str, Any]:
    """Its keyword arguments, with a folder for every stage among them."""
    return {name: with_folders(value, lambda needed: needed.folder(runtime.store)) for name, value in stage.given.items()}


def _make(stage: Stage, runtime: Runtime, folder: Path, open_endpoint: Callable[[EndpointModel], ChatModel] | None) -> Manifest:
    if is_main_process():
        if (folder / MANIFEST).exists():
            say(f"  {folder} is damaged; moved to {move_aside(folder).name} and made again")
        say(f"{stage.name}")
    with locked(folder) if is_main_process() else nullcontext():
        if is_main_process():
            say_to_others(_begun(folder))
        context = replace(context_of(stage, runtime), open_endpoint=open_endpoint)
        started = time.monotonic()
        result = _call(stage, context)
        if not is_main_process():
            return _wait_for(folder)
        return finish(
            folder,
            stage=stage.name,
            stage_fingerprint=stage.fingerprint,
            counts=result.counts,
            dropped=result.dropped,
            metrics=result.metrics,
            wall_seconds=time.monotonic() - started,
        )


def _call(stage: Stage, context: StageContext) -> StageResult:
    """Call the stage's function. A training step that finds no memory has said so itself; this is for sampling and scoring."""
    try:
        return stage.make(context, **arguments_of(stage, context.runtime))
    except (RuntimeError, MemoryError) as error:
        if not means_no_memory(error):
            raise
        raise TrainingError(
            f"out of memory in the stage {stage.name}. Lower runtime.per_device_eval_batch_size, which is "
            f"{context.runtime.per_device_eval_batch_size}, for sampling and scoring. "
            "Run the same command again to resume: what was done is kept."
        ) from error


def _begun(folder: Path) -> str:
    return f"{folder.name} is begun"


def _is_begun(folder: Path) -> bool:
    """Wait for the first process to begin a stage, or to find it finished. A damaged folder is out of the way then."""
    present = monitor.here()
    assert present is not None
    while not present.has_said(0, _begun(folder)):
        if read_manifest(folder) is not None:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _caches(store: Path) -> Path:
    """SQLite is not safe on a disk that several machines write to, so each machine has its own."""
    return store / "caches" / socket.gethostname() if len(local_ranks()) < world_size() else store / "caches"


def _wait_for(folder: Path) -> Manifest:
    """Look until the first process has finished the stage. No collective is open meanwhile, so none can time out, and the roll call
    ends this process where that one failed, died or froze.
    """
    while (manifest := read_manifest(folder)) is None:
        time.sleep(POLL_SECONDS)
    return manifest
