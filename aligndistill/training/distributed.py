"""Which process this is, by what the launchers (deepspeed, torchrun, accelerate) put into the environment."""

import os
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import torch

from aligndistill.errors import TrainingError, UserError
from aligndistill.progress import say

T = TypeVar("T")
STALE_BUILD_SECONDS = 600
SECONDS_BETWEEN_LOOKS = 0.2


def world_size() -> int:
    """How many processes a launcher started; one without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """This process's number among them."""
    return int(os.environ.get("RANK", "0"))


def is_main_process() -> bool:
    """Whether this is the first process of all."""
    return rank() == 0


def local_ranks() -> range:
    """The numbers of the processes on this machine."""
    first = rank() - int(os.environ.get("LOCAL_RANK", "0"))
    # torchrun's and accelerate's name, then DeepSpeed's
    count = os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or world_size()
    return range(first, first + int(count))


def our_share(items: Sequence[T], ranks: range | None = None) -> list[T]:
    """This process's share of some work, among all processes or these. It depends on nothing but the place in the list."""
    among = ranks or range(world_size())
    return list(items[rank() - among.start :: len(among)])


def from_all(work: Callable[[], list[T]]) -> list[T]:
    """What every process makes of its own share of some work, process after process. All processes must come here.

    Raises:
        UserError: the work failed in some process. All of them raise then: those where it failed their own error, the others that
            of the first one, so that none of them waits for a process that is on its way out.
    """
    if world_size() == 1:
        return work()
    from accelerate.utils import gather_object  # only here: importing it takes seconds

    made: list[T] = []
    failed: Exception | None = None
    try:
        made = work()
    except Exception as error:  # whatever it is, the others are told
        failed = error
    told = failed if failed is None or isinstance(failed, UserError) else TrainingError(f"{type(failed).__name__}: {failed}")
    everyones: list[tuple[list[T], UserError | None]] = gather_object([(made, told)])
    if failed is not None:
        raise failed
    for _, reported in everyones:
        if reported is not None:
            raise reported
    return [one for of_process, _ in everyones for one in of_process]


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
        time.sleep(SECONDS_BETWEEN_LOOKS)


def skip_unused_operator() -> None:
    """Keep DeepSpeed on CPUs from compiling an all-reduce for tensor-parallel inference, which nothing here calls.

    It would take a compiler and a minute at the first start, for every process to wait for.
    """
    import deepspeed.ops  # only here: importing it takes seconds

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def choose_accelerator() -> None:
    """Tell DeepSpeed where it runs before anything imports it: without a GPU it would guess, and warn that it did."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    # One line per call of DeepSpeed's, in every process: torch has new names for what it calls.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
