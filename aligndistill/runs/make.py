"""Run one stage, with all processes of the run."""

import socket
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from aligndistill.config.run import Runtime
from aligndistill.errors import TrainingError
from aligndistill.processes import signals
from aligndistill.processes.memory_errors import is_out_of_memory
from aligndistill.processes.monitor import announce, current_monitor
from aligndistill.processes.progress import say
from aligndistill.processes.ranks import is_main_process, local_ranks, world_size
from aligndistill.stages.context import StageContext
from aligndistill.store.artifacts import MANIFEST, Manifest, find_damage, finish, locked, move_aside, read_manifest
from aligndistill.store.stage import ENDED, Stage, StageResult, with_folders, without

POLL_SECONDS = 0.5


def move_damaged_aside(stages: Sequence[Stage], store: Path) -> None:
    """Verify the inputs of the unfinished stages against their manifests, and move damaged ones away, so that they are rebuilt.

    Called by the main process alone, before the others start: rebuilding a stage may need all processes.
    """
    found = True
    while found:  # a stage to be rebuilt has inputs too
        found = False
        missing = [stage for stage in stages if read_manifest(stage.folder(store)) is None]
        for folder in {needed.folder(store) for stage in missing for needed in stage.inputs}:
            damage = find_damage(folder)
            if damage is not None:
                found = True
                say(f"  {folder} is damaged ({damage}); moved to {move_aside(folder).name} and rebuilt")


def not_run(stages: Iterable[Stage], store: Path) -> dict[Stage, str]:
    """The stages that are not run because a stage before them ended the rounds, and why.

    Args:
        stages: in topological order.
    """
    reasons: dict[Stage, str] = {}
    ended: dict[Stage, str] = {}
    for stage in stages:
        before = [] if stage.collects else [reason for one in stage.direct if (reason := reasons.get(one) or ended.get(one))]
        if before:
            reasons[stage] = before[0]
        elif stage.may_end and (manifest := read_manifest(stage.folder(store))) and ENDED in manifest.metrics:
            ended[stage] = manifest.metrics[ENDED]
    return reasons


def run_stage(stage: Stage, runtime: Runtime, equip: Callable[[StageContext], StageContext] = lambda context: context) -> Manifest:
    """Run a stage unless it is finished. Its inputs must be finished.

    Args:
        equip: adds to the stage's context what the run has: its servers.

    Raises:
        UserError: the stage failed; what it had done so far is kept.
    """
    folder = stage.folder(runtime.store)
    manifest = read_manifest(folder)
    if manifest is not None:
        return manifest
    context = equip(context_of(stage, runtime))
    with signals.as_interrupt():
        if is_main_process() or (stage.together and _has_started(folder)):
            return _make(stage, context)
        return _wait_for(folder)


def context_of(stage: Stage, runtime: Runtime) -> StageContext:
    """The context of a stage. Its inputs need to be finished only when they are read."""
    return StageContext(
        name=stage.name,
        folder=stage.folder(runtime.store),
        caches=_caches(runtime.store),
        runtime=runtime,
        identities={needed.folder(runtime.store): needed.fingerprint for needed in stage.inputs},
    )


def arguments_of(stage: Stage, runtime: Runtime) -> dict[str, Any]:
    """The stage's keyword arguments, each stage among them replaced by its folder, without those that are not run."""
    given = stage.given
    if stage.collects:
        left_out = not_run(stage.upstream, runtime.store)
        given = {name: without(value, left_out) for name, value in given.items()}
    return {name: with_folders(value, lambda needed: needed.folder(runtime.store)) for name, value in given.items()}


def _make(stage: Stage, context: StageContext) -> Manifest:
    folder = context.folder
    if is_main_process() and (folder / MANIFEST).exists():
        say(f"  {folder} is damaged; moved to {move_aside(folder).name} and rebuilt")
    with locked(folder) if is_main_process() else nullcontext():
        if is_main_process():
            announce(_started(folder))
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
    """Call the stage's function. Out of memory in training is reported by the trainer; here it is reported for sampling and
    scoring.
    """
    try:
        return stage.make(context, **arguments_of(stage, context.runtime))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            f"out of memory in the stage {stage.name}. Lower runtime.per_device_eval_batch_size, which is "
            f"{context.runtime.per_device_eval_batch_size}, for sampling and scoring. "
            "Run the same command again to resume: what was done is kept."
        ) from error


def _started(folder: Path) -> str:
    return f"{folder.name} is started"


def _has_started(folder: Path) -> bool:
    """Wait until the main process has started the stage, and moved a damaged folder away; False if it is finished already."""
    monitor = current_monitor()
    assert monitor is not None
    while not monitor.has_announced(0, _started(folder)):
        if read_manifest(folder) is not None:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _caches(store: Path) -> Path:
    """The folder of caches. Each machine has its own, since SQLite is not safe on a disk that several machines write to."""
    return store / "caches" / socket.gethostname() if len(local_ranks()) < world_size() else store / "caches"


def _wait_for(folder: Path) -> Manifest:
    """Wait until the main process has finished the stage. No collective is open meanwhile, so none can time out, and the
    monitor ends this process if the main process failed, exited or stopped responding.
    """
    while (manifest := read_manifest(folder)) is None:
        time.sleep(POLL_SECONDS)
    return manifest
