"""Which process this is, by what the launchers (deepspeed, torchrun, accelerate) put into the environment."""

import os
from collections.abc import Callable, Sequence
from typing import TypeVar

from aligndistill.errors import TrainingError, UserError

T = TypeVar("T")


def world_size() -> int:
    """How many processes a launcher started; one without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_rank() -> int:
    """This process's number among them."""
    return int(os.environ.get("RANK", "0"))


def is_main_process() -> bool:
    """Whether this is the first process of all."""
    return process_rank() == 0


def local_ranks() -> range:
    """The numbers of the processes on this machine."""
    first = process_rank() - int(os.environ.get("LOCAL_RANK", "0"))
    # torchrun's and accelerate's name, then DeepSpeed's
    count = os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or world_size()
    return range(first, first + int(count))


def our_share(items: Sequence[T], ranks: range | None = None) -> list[T]:
    """This process's share of some work, among all processes or these. It depends on nothing but the place in the list."""
    among = ranks or range(world_size())
    return list(items[process_rank() - among.start :: len(among)])


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
