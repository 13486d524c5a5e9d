"""What DeepSpeed needs to know before it starts: where it runs, and that no operator is being built."""

import os
import time
import warnings
from contextlib import suppress
from pathlib import Path

from aligndistill.processes.devices import has_gpu
from aligndistill.processes.progress import say
from aligndistill.processes.ranks import is_main_process

STALE_BUILD_SECONDS = 600
POLL_SECONDS = 0.2


def build_locks() -> list[tuple[Path, float]]:
    """Locks of builds of torch's and DeepSpeed's operators, with their age in seconds."""
    folder = os.environ.get("TORCH_EXTENSIONS_DIR") or Path.home() / ".cache" / "torch_extensions"
    found = []
    for lock in Path(folder).glob("**/lock"):
        with suppress(FileNotFoundError):
            found.append((lock, time.time() - lock.stat().st_mtime))
    return found


def wait_for_builds() -> None:
    """Wait for operators that are being built, and take away the locks of builds that must have been killed.

    torch would wait for such a lock without an end and without a word. DeepSpeed's CPU Adam took three and a half minutes on two
    busy cores.
    """
    told: set[Path] = set()
    while locks := build_locks():
        for lock, seconds in locks:
            if seconds > STALE_BUILD_SECONDS:
                lock.unlink(missing_ok=True)
            elif lock not in told and is_main_process():
                told.add(lock)
                left = STALE_BUILD_SECONDS - seconds
                say(f"  waiting for {lock.parent.name} to be compiled; {lock} is removed {left:.0f} s from now")
        time.sleep(POLL_SECONDS)


def skip_unused_operator() -> None:
    """Keep DeepSpeed on CPUs from compiling an all-reduce for tensor-parallel inference, which nothing here calls.

    It would take a compiler and a minute at the first start, for every process to wait for.
    """
    import deepspeed.ops  # only here: importing it takes seconds

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def choose_accelerator() -> None:
    """Tell DeepSpeed where it runs before anything imports it: without a GPU it would guess, and warn that it did."""
    if not has_gpu():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    # One line per call of DeepSpeed's, in every process: torch has new names for what it calls.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
