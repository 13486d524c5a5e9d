"""Progress: lines that change on a terminal and in a notebook; elsewhere lines with a time stamp, now and then."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from aligndistill.processes.log_format import is_json, json_line
from aligndistill.processes.notebook import Output
from aligndistill.processes.rate import Rate
from aligndistill.processes.screen import (
    CountTexts,
    Screen,
    can_change,
    count_line,
    count_text,
    rate_text,
    rough_duration,
    run_line,
)

T = TypeVar("T")

IN_NOTEBOOK = "ipykernel" in sys.modules
# In a notebook, messages are plain lines on standard output: standard error looks like error messages there.
console = Console(stderr=not IN_NOTEBOOK, highlight=False, force_jupyter=False, force_terminal=False if IN_NOTEBOOK else None)
SECONDS_BETWEEN_LINES = 30.0
FIRST_LINE_AFTER_SECONDS = 5.0
"""A long stage is seen to work early on: a step of a large model alone may take half a minute."""
SECONDS_BETWEEN_NOTES = 1.0
SILENT_SECONDS = 0.5
"""What takes longer says what it is."""
QUIET = "ALIGNDISTILL_QUIET"
"""The environment variable that hides progress, here and in the processes of a launcher; messages stay."""
VERBOSE = "ALIGNDISTILL_VERBOSE"
"""The one that shows the folders of stages."""

_screen = Screen()
_output = Output()
_hidden: list[bool] = []


@dataclass(frozen=True)
class Count:
    """A running count as it is shown; `per_second` is 0 where too little is known."""

    label: str
    done: int
    total: int | None
    per_second: float
    note: str


_runs: list["RunProgress"] = []
_listeners: list[Callable[[Count], None]] = []


@contextmanager
def listening(listener: Callable[[Count], None]) -> Iterator[None]:
    """Call the listener with every count that a bar shows in the block."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


class Bar:
    """One running count, with its rate and the time left. `note`, for example a loss, is shown after them."""

    def __init__(self, label: str, total: int | None) -> None:
        self._label, self._total = label, total
        self._done, self._note = 0, ""
        now = time.monotonic()
        self._rate = Rate(now)
        self._last_line = now + FIRST_LINE_AFTER_SECONDS - SECONDS_BETWEEN_LINES

    def expect(self, total: int) -> None:
        """Set the total, when it becomes known only later."""
        self._total = total

    def resume(self, done: int) -> None:
        """Set the count of what was done before; it has no part in the rate."""
        self._rate = Rate(time.monotonic(), done)
        self.set(done)

    def advance(self, by: int = 1, note: str = "") -> None:
        """Advance the count."""
        self.set(self._done + by, note)

    def set(self, done: int, note: str = "") -> None:
        """Set the count. The last note stays until there is another one."""
        now = time.monotonic()
        self._done, self._note = done, note or self._note
        known = self._rate.count(done, now)
        for listener in _listeners:
            listener(Count(self._label, done, self._total, self._rate.per_second, self._note))
        if _is_output():
            _output.update()
        elif not _is_screen() and now - self._last_line >= SECONDS_BETWEEN_LINES and not is_quiet():
            self._last_line = now
            say(f"  {count_text(self._texts(known))}", **self._values(known))

    def line(self, width: int) -> str:
        """The count for a terminal of this width."""
        return count_line(self._texts(self._done), width, _ascii_only())

    def _left_seconds(self, done: int) -> float | None:
        """How long the rest takes; None while that is not known."""
        return None if self._total is None else self._rate.left_seconds(self._total - done, time.monotonic())

    def _texts(self, done: int) -> CountTexts:
        seconds = self._left_seconds(done)
        left = "" if seconds is None else rough_duration(seconds)
        return CountTexts(self._label, done, self._total, rate_text(self._rate.per_second), left, self._note)

    def _values(self, done: int) -> dict[str, str | float | None]:
        """The same count for a log that programs read."""
        left = self._left_seconds(done)
        return {
            "n": done,
            "total": self._total,
            "rate": round(self._rate.per_second, 4) or None,
            "eta_s": None if left is None else round(left, 1),
            "note": self._note or None,
        }


class RunProgress:
    """Where a run is: which stage of how many, how long it has taken, what is left, and what it has spent.

    Attributes:
        name: of the stage that runs.
        usd: what was spent on servers, US dollars; None for nothing.
    """

    def __init__(self, total: int, spent: Callable[[], str] = lambda: "", usd: Callable[[], float | None] = lambda: None) -> None:
        self._total, self._spent, self.usd = total, spent, usd
        self._began = time.monotonic()
        self.name, self._number = "", 0
        self._stage_began = self._began
        self._left_seconds: float | None = None

    def begin(self, name: str, number: int, left_seconds: float | None = None, at_least: bool = False) -> None:
        """A stage begins.

        Args:
            number: its place among all stages of the run, from 1.
            left_seconds: how long the run takes from here; None if unknown.
            at_least: some of what is left has not been measured.
        """
        self.name, self._number = name, number
        self._stage_began, self._left_seconds = time.monotonic(), left_seconds
        self._about = "at least" if at_least else "about"
        if _is_output():
            _output.update(at_once=True)
        elif not _is_screen() and not is_quiet():
            text = ", ".join(filter(None, [f"{name}: stage {number}/{self._total}", self._left_text()]))
            say(text, note=f"stage {number}/{self._total}")

    def finish(self, summary: str, folder: Path) -> None:
        """The stage ended; its result is in this folder."""
        if os.environ.get(VERBOSE):
            summary = f"{summary}; {folder}"
        aligned = f"{self.name:{_NAME_COLUMNS}} {summary}"
        if _is_output():
            _output.finish(aligned)
        elif not is_quiet():
            say(aligned if _is_screen() else f"  {self.name}: {summary}", note=summary)

    def line(self, width: int) -> str:
        """The run for a terminal of this width."""
        if not self._number:
            return ""
        took = rough_duration(time.monotonic() - self._began)
        parts = [f"stage {self._number}/{self._total} {self.name}", took, self._left_text(), self._spent()]
        return run_line([part for part in parts if part], width)

    def _left_text(self) -> str:
        if self._left_seconds is None:
            return ""
        left = max(0.0, self._left_seconds - (time.monotonic() - self._stage_began))
        return f"{self._about} {rough_duration(left)} left" if left >= 1 else ""


_NAME_COLUMNS = 20


@contextmanager
def run_progress(
    total: int, spent: Callable[[], str] = lambda: "", usd: Callable[[], float | None] = lambda: None
) -> Iterator[RunProgress]:
    """Show where a run with so many stages is, while the block runs. `spent` on servers is shown as text, and `usd` the same."""
    progress = RunProgress(total, spent, usd)
    _runs.append(progress)
    try:
        with _shown(progress.line):
            yield progress
    finally:
        _runs.remove(progress)


@contextmanager
def _shown(line: Callable[[int], str]) -> Iterator[None]:
    if _is_output():
        with _output.showing(line):
            yield
    elif _is_screen() and not is_quiet():
        with _screen.showing(line, console):
            yield
    else:
        yield


@contextmanager
def bar(label: str, total: int | None = None) -> Iterator[Bar]:
    """Show a running count while the block runs."""
    running = Bar(label, total)
    with _shown(running.line):
        yield running


def track(items: Iterable[T], label: str, total: int, done: int = 0, note: Callable[[], str] | None = None) -> Iterator[T]:
    """Yield the items, counting them in a progress bar.

    Args:
        total: of all items, those included that were done before.
        done: how many were done before; if there are any, it says so.
        note: what to show beside the count, such as what was spent.
    """
    if done:
        say(f"  {label}: resuming at {done} of {total}")
    with bar(label, total) as running:
        running.resume(done)
        shown, next_note_seconds = "", 0.0
        for item in items:
            yield item
            if note is not None and time.monotonic() >= next_note_seconds:  # it may read a file
                shown, next_note_seconds = note(), time.monotonic() + SECONDS_BETWEEN_NOTES
            running.advance(note=shown)


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Tell a person at a terminal what a command does, if that takes longer than half a second."""
    if not _is_screen() or is_quiet():
        yield
        return
    timer = threading.Timer(SILENT_SECONDS, say, [f"{what} ..."])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def say(text: str, **values: str | float | None) -> None:
    """Print a message; with the time in front where the output is not a terminal, as in a log.

    Args:
        values: the same for a log that programs read, by the keys of `log_format.KEYS`.
    """
    if is_json():
        run = _runs[-1] if _runs else None
        about = {"stage": run.name or None, "usd": run.usd()} if run is not None else {}
        text = json_line(text, values={**about, **values})
    elif not _is_screen() and not IN_NOTEBOOK:
        text = f"{datetime.now():%Y-%m-%d %H:%M:%S} {text}"
    console.print(text, markup=False, emoji=False, soft_wrap=True)


def _is_screen() -> bool:
    """Whether lines may change: on a terminal, unless programs read them."""
    return can_change(console) and not is_json()


def _is_output() -> bool:
    """Whether progress is an output of a notebook's cell."""
    return IN_NOTEBOOK and not is_quiet() and not is_json()


def is_quiet() -> bool:
    """Whether progress is hidden."""
    return bool(_hidden or os.environ.get(QUIET))


@contextmanager
def hidden() -> Iterator[None]:
    """Hide the progress of the block: of a dry run, whose answers are placeholders."""
    _hidden.append(True)
    try:
        yield
    finally:
        _hidden.pop()


def _ascii_only() -> bool:
    return not console.encoding.lower().startswith("utf")
