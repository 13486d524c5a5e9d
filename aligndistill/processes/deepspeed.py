"""Preparation for DeepSpeed: select the accelerator, and wait until no operator is being compiled."""

import os
import time
from contextlib import suppress
from pathlib import Path

from aligndistill.processes.devices import has_gpu
from aligndistill.processes.progress import say
from aligndistill.processes.ranks import is_main_process

STALE_BUILD_SECONDS = 600
POLL_SECONDS = 0.2


def build_locks() -> list[tuple[Path, float]]:
    """Lock files of the builds of torch's and DeepSpeed's operators, with their age in seconds."""
    folder = os.environ.get("TORCH_EXTENSIONS_DIR") or Path.home() / ".cache" / "torch_extensions"
    found = []
    for lock in Path(folder).glob("**/lock"):
        with suppress(FileNotFoundError):
            found.append((lock, time.time() - lock.stat().st_mtime))
    return found


def wait_for_builds() -> None:
    """Wait for operators that are being compiled, and remove the locks of builds that must have been killed.

    torch would wait for such a lock forever and silently. Compiling DeepSpeed's CPU Adam took three and a half minutes on two busy
    cores.
    """
    announced: set[Path] = set()
    while locks := build_locks():
        for lock, seconds in locks:
            if seconds > STALE_BUILD_SECONDS:
                lock.unlink(missing_ok=True)
            elif lock not in announced and is_main_process():
                announced.add(lock)
                left = STALE_BUILD_SECONDS - seconds
                say(f"  waiting for {lock.parent.name} to be compiled; {lock} will be removed in {left:.0f} s")
        time.sleep(POLL_SECONDS)


def skip_unused_operator() -> None:
    """Keep DeepSpeed on CPUs from compiling an all-reduce for tensor-parallel inference, which nothing here calls.

    Compiling it needs a compiler, and makes every process wait for a minute at the first start.
    """
    import deepspeed.ops  # only here: importing it takes seconds

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def choose_accelerator() -> None:
    """Set DeepSpeed's accelerator before anything imports it: without a GPU it would guess, and print a warning."""
    if not has_gpu():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
