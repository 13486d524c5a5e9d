"""Progress: lines that change on a terminal and in a notebook; elsewhere lines with a time stamp, now and then."""

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from aligndistill.processes.log_format import is_json, json_line
from aligndistill.processes.notebook import Output
from aligndistill.processes.screen import Screen, can_change, count_line, count_text, duration, rate_text, run_line

T = TypeVar("T")

IN_NOTEBOOK = "ipykernel" in sys.modules
# In a notebook, messages are plain lines on standard output: standard error looks like error messages there.
console = Console(stderr=not IN_NOTEBOOK, highlight=False, force_jupyter=False, force_terminal=False if IN_NOTEBOOK else None)
SECONDS_BETWEEN_LINES = 30.0
FIRST_LINE_AFTER_SECONDS = 5.0
"""A long stage is seen to work early on: a step of a large model alone may take half a minute."""
SECONDS_BETWEEN_NOTES = 1.0
SECONDS_BETWEEN_BATCHES = 1.0
"""Items that come sooner one after another were made together, as the answers of a batch are."""
RATE_OVER_SECONDS = 60.0
"""The rate is that of the last minute."""
LEFT_AFTER_SECONDS = 5.0
"""No time left is told before that: the first items say little."""
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
        self._done = 0
        self._first = 0  # the count at the start: that of a resumed stage is higher
        self._started = self._last_item = time.monotonic()
        self._last_line = self._started + FIRST_LINE_AFTER_SECONDS - SECONDS_BETWEEN_LINES
        self._in_batch = 0
        self._note = ""
        self._per_second = 0.0
        self._marks: deque[tuple[float, float, int]] = deque([(self._started, self._started, 0)])

    def expect(self, total: int) -> None:
        """Set the total, when it becomes known only later."""
        self._total = total

    def resume(self, done: int) -> None:
        """Set the count of what was done before; it has no part in the rate."""
        self._first, self._started = done, time.monotonic()
        self._last_item = self._started
        self._marks = deque([(self._started, self._started, done)])
        self.set(done)

    def advance(self, by: int = 1, note: str = "") -> None:
        """Advance the count."""
        self.set(self._done + by, note)

    def set(self, done: int, note: str = "") -> None:
        """Set the count. The last note stays until there is another one."""
        before, before_seconds, now = self._done, self._last_item, time.monotonic()
        self._done, self._last_item, self._note = done, now, note or self._note
        # The first item of a batch says nothing of the rate, since the others come at once: what is told is the batch before.
        begins_batch, was_batch = now - before_seconds > SECONDS_BETWEEN_BATCHES, self._in_batch > 1
        self._in_batch = 1 if begins_batch else self._in_batch + 1
        shown, at_seconds = (before, before_seconds) if begins_batch and was_batch else (done, now)
        self._per_second = self._rate(shown, at_seconds)
        for listener in _listeners:
            listener(Count(self._label, done, self._total, self._per_second, self._note))
        if _is_output():
            _output.update()
        elif not _is_screen() and now - self._last_line >= SECONDS_BETWEEN_LINES and not is_quiet():
            self._last_line = now
            rate, left = rate_text(self._per_second), self._left(shown)
            say(f"  {count_text(self._label, shown, self._total, rate, left, self._note)}", **self._values(shown))

    def line(self, width: int) -> str:
        """The count for a terminal of this width."""
        rate, left = rate_text(self._per_second), self._left(self._done)
        return count_line(self._label, self._done, self._total, rate, left, self._note, width, _ascii_only())

    def _rate(self, done: int, at_seconds: float) -> float:
        """Items per second in the last minute; 0 where too little is known: the first item may be the first of a batch."""
        began, _, _ = self._marks[-1]
        if len(self._marks) > 1 and at_seconds - began <= SECONDS_BETWEEN_BATCHES:
            self._marks[-1] = (began, at_seconds, done)  # of one batch, the last counts
        elif at_seconds > self._marks[-1][1]:
            self._marks.append((at_seconds, at_seconds, done))
        while len(self._marks) > 2 and self._marks[1][1] <= at_seconds - RATE_OVER_SECONDS:
            self._marks.popleft()
        _, since, counted = self._marks[0]
        return (done - counted) / (at_seconds - since) if at_seconds > since and done - self._first > 1 else 0.0

    def _left_seconds(self, done: int) -> float | None:
        """How long the rest takes; None while that is not known."""
        known = self._per_second > 0 and self._total is not None and time.monotonic() - self._started >= LEFT_AFTER_SECONDS
        return max(0, (self._total or 0) - done) / self._per_second if known else None

    def _left(self, done: int) -> str:
        """The same as text; empty while it is not known."""
        seconds = self._left_seconds(done)
        return "" if seconds is None else duration(seconds)

    def _values(self, done: int) -> dict[str, str | float | None]:
        """The same count for a log that programs read."""
        left = self._left_seconds(done)
        return {
            "n": done,
            "total": self._total,
            "rate": round(self._per_second, 4) or None,
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
        took = duration(time.monotonic() - self._began)
        parts = [f"stage {self._number}/{self._total} {self.name}", took, self._left_text(), self._spent()]
        return run_line([part for part in parts if part], width)

    def _left_text(self) -> str:
        if self._left_seconds is None:
            return ""
        left = max(0.0, self._left_seconds - (time.monotonic() - self._stage_began))
        return f"{self._about} {duration(left)} left" if left >= 1 else ""


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
