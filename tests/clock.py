"""The time as a test sets it, in some modules alone."""

import time
from types import ModuleType
from typing import Any

import pytest


class Clock:
    """Stands in for the module `time` of a module. Other threads keep the real one: the event loop of a server that runs beside the
    test would wait for hours if its time went back.
    """

    def __init__(self, now: list[float]) -> None:
        self._now = now

    def monotonic(self) -> float:
        """The time that the test set."""
        return self._now[0]

    time = monotonic

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


def set_clock(monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> list[float]:
    """The time of these modules, in a list of one number that the test changes."""
    now = [1000.0]
    for module in modules:
        monkeypatch.setattr(module, "time", Clock(now))
    return now
