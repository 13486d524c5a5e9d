"""Progress on the terminal: a bar, or a plain line every ten seconds if the output is not a terminal."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")

IN_NOTEBOOK = "ipykernel" in sys.modules
# In a notebook, plain lines on standard output: it keeps every state of a bar, and shows standard error like error messages.
console = Console(stderr=not IN_NOTEBOOK, highlight=False, force_jupyter=False, force_terminal=False if IN_NOTEBOOK else None)
SECONDS_BETWEEN_LINES = 10.0
SECONDS_BETWEEN_NOTES = 1.0
SECONDS_BETWEEN_BATCHES = 1.0
"""Items that come sooner one after another were made together, as the answers of a batch are."""


@dataclass(frozen=True)
class Count:
    """A running count as it is shown; `per_second` is 0 where too little is known."""

    label: str
    done: int
    total: int | None
    per_second: float
    note: str


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

    def __init__(self, label: str, total: int | None, progress: Progress | None) -> None:
        self._label, self._total, self._progress = label, total, progress
        self._done = 0
        self._first = 0  # the count at the start: that of a resumed stage is higher
        self._started = self._last_line = self._last_item = time.monotonic()
        self._in_batch = 0
        self._note = ""
        self._task = progress.add_task(label, total=total, note="", rate="") if progress else None

    def expect(self, total: int) -> None:
        """Set the total, when it becomes known only later."""
        self._total = total
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, total=total)

    def resume(self, done: int) -> None:
        """Set the count of what was done before; it has no part in the rate."""
        self._first, self._started = done, time.monotonic()
        self._last_item = self._started
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
        per_second = self._per_second(shown, at_seconds)
        for listener in _listeners:
            listener(Count(self._label, done, self._total, per_second, self._note))
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, note=self._note, rate=_rate_text(per_second))
        elif now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            console.print(self._line(shown, per_second), markup=False, soft_wrap=True)

    def _per_second(self, done: int, at_seconds: float) -> float:
        """0 where too little is known: the first item may be the first of a batch."""
        seconds = at_seconds - self._started
        return (done - self._first) / seconds if seconds > 0 and done - self._first > 1 else 0.0

    def _line(self, done: int, per_second: float) -> str:
        """`  verdicts: 120/960 (12%), 3.4/s, 4 min left, 310,000 tokens`."""
        parts = [f"{done}/{self._total}" if self._total is not None else f"{done}"]
        if self._total:
            parts[0] += f" ({100 * done // self._total}%)"
        if per_second > 0:
            parts.append(_rate_text(per_second))
            if self._total is not None:
                parts.append(f"{duration((self._total - done) / per_second)} left")
        return f"  {self._label}: {', '.join([*parts, *filter(None, [self._note])])}"


def _rate_text(per_second: float) -> str:
    """`3.4/s`, or `12 s each` where one takes longer than a second."""
    if per_second <= 0:
        return ""
    return f"{per_second:.3g}/s" if per_second >= 1 else f"{1 / per_second:.3g} s each"


def duration(seconds: float) -> str:
    """`50 s`, `4 min`, `1 h 20 min`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


@contextmanager
def bar(label: str, total: int | None = None) -> Iterator[Bar]:
    """Show a progress bar while the block runs."""
    if not console.is_terminal:
        yield Bar(label, total, None)
        return
    columns = (
        TextColumn("  {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bar(label, total, progress)


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


def say(text: str) -> None:
    """Print a progress message."""
    console.print(text, markup=False, soft_wrap=True)
