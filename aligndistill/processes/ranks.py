"""Which process this is, by what the launchers (deepspeed, torchrun, accelerate) put into the environment."""

import os
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


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
