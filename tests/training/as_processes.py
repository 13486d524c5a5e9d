"""Threads in the place of a launcher's processes: cheap, and a collective that one of them misses is an error, not a wait."""

import pickle
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import accelerate.utils
import pytest

from aligndistill.processes import ranks

SECONDS_FOR_A_COLLECTIVE = 60


def as_processes(
    monkeypatch: pytest.MonkeyPatch, count: int, work: Callable[[int], Any], knows_rank: Sequence[ModuleType] = ()
) -> list[Any]:
    """What so many processes make of the work, or the exception that it ended with in each.

    Args:
        knows_rank: the modules that have imported `rank` by name.
    """
    here = threading.local()
    given: list[Any] = [None] * count
    everyone = threading.Barrier(count)

    def gather_object(values: list[Any]) -> list[Any]:
        given[here.rank] = pickle.dumps(values)
        everyone.wait(SECONDS_FOR_A_COLLECTIVE)
        found = [value for of_process in given for value in pickle.loads(of_process)]
        everyone.wait(SECONDS_FOR_A_COLLECTIVE)
        return found

    def process(rank: int) -> Any:
        here.rank = rank
        try:
            return work(rank)
        except Exception as error:
            return error

    with monkeypatch.context() as patch, ThreadPoolExecutor(count) as threads:
        patch.setenv("WORLD_SIZE", str(count))
        patch.setattr(accelerate.utils, "gather_object", gather_object)
        for module in (ranks, *knows_rank):
            patch.setattr(module, "process_rank", lambda: here.rank)
        return list(threads.map(process, range(count)))
