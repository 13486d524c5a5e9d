"""The rank of this process, from the environment variables that launchers (deepspeed, torchrun, accelerate) set."""

import os
from collections.abc import Callable, Sequence
from typing import TypeVar

from aligndistill.errors import TrainingError, UserError

T = TypeVar("T")


def world_size() -> int:
    """The number of processes that a launcher started; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_rank() -> int:
    """The rank of this process."""
    return int(os.environ.get("RANK", "0"))


def is_main_process() -> bool:
    """Whether this is the main process, rank 0."""
    return process_rank() == 0


def local_ranks() -> range:
    """The ranks of the processes on this machine."""
    first = process_rank() - int(os.environ.get("LOCAL_RANK", "0"))
    # the variable of torchrun and accelerate, then DeepSpeed's
    count = os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or world_size()
    return range(first, first + int(count))


def our_share(items: Sequence[T], ranks: range | None = None) -> list[T]:
    """This process's share of some items, among all processes or the given ranks. It depends on the place in the list alone."""
    among = ranks or range(world_size())
    return list(items[process_rank() - among.start :: len(among)])


def from_all(work: Callable[[], list[T]]) -> list[T]:
    """The results of every process for its own share of some items, in rank order. A collective call: all processes must make it.

    Raises:
        UserError: some process failed. Then all of them raise, so that none waits for a process that is exiting: a failed process
            raises its own error, the others that of the first failed one.
    """
    if world_size() == 1:
        return work()
    from accelerate.utils import gather_object  # only here: importing it takes seconds

    made: list[T] = []
    failed: Exception | None = None
    try:
        made = work()
    except Exception as error:  # any error is sent to the other processes
        failed = error
    to_send = failed if failed is None or isinstance(failed, UserError) else TrainingError(f"{type(failed).__name__}: {failed}")
    everyones: list[tuple[list[T], UserError | None]] = gather_object([(made, to_send)])
    if failed is not None:
        raise failed
    for _, reported in everyones:
        if reported is not None:
            raise reported
    return [one for of_process, _ in everyones for one in of_process]
