"""Progress on the terminal: a bar where there is one, a plain line every ten seconds where there is not."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")

IN_NOTEBOOK = "ipykernel" in sys.modules
# In a notebook plain lines, on standard output: it keeps every state of a bar, and shows standard error as if it were errors.
console = Console(stderr=not IN_NOTEBOOK, highlight=False, force_jupyter=False, force_terminal=False if IN_NOTEBOOK else None)
SECONDS_BETWEEN_LINES = 10.0


class Bar:
    """One running count. `note` is shown behind it (a loss, say)."""

    def __init__(self, label: str, total: int | None, progress: Progress | None) -> None:
        self._label, self._total, self._progress = label, total, progress
        self._done = 0
        self._last_line = time.monotonic()
        self._task = progress.add_task(label, total=total, note="") if progress else None

    def expect(self, total: int) -> None:
        """Say how far it will count, when that is known only later."""
        self._total = total
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, total=total)

    def advance(self, by: int = 1, note: str = "") -> None:
        """Count further."""
        self.set(self._done + by, note)

    def set(self, done: int, note: str = "") -> None:
        """Set the count."""
        self._done = done
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, note=note)
        elif time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            console.print(f"  {self._label}: {done}/{self._total} {note}")


@contextmanager
def bar(label: str, total: int | None = None) -> Iterator[Bar]:
    """Show a count while the block runs."""
    if not console.is_terminal:
        yield Bar(label, total, None)
        return
    columns = (
        TextColumn("  {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bar(label, total, progress)


def track(items: Iterable[T], label: str, total: int) -> Iterator[T]:
    """Pass items on, counting them."""
    with bar(label, total) as running:
        for item in items:
            yield item
            running.advance()


def say(text: str) -> None:
    """A line about what happens, beside the bars."""
    console.print(text, markup=False, soft_wrap=True)
