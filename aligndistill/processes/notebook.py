"""Progress in a notebook: one output of the cell, which is replaced while the run goes on."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aligndistill.processes.screen import Line

WIDTH = 100
"""Characters of a line: outputs are about as wide."""
SECONDS_BETWEEN_UPDATES = 0.5
"""A notebook keeps up with that, over a network as well."""


class Output:
    """Finished stages, a line each, and below them the lines that change. What is shown last stays in the notebook."""

    def __init__(self) -> None:
        self._finished: list[str] = []
        self._lines: list[Line] = []
        self._handle: Any = None
        self._text = ""
        self._updated = 0.0

    @contextmanager
    def showing(self, line: Line) -> Iterator[None]:
        """Show a line below those that are there already; the first one begins an output of the cell."""
        self._lines.append(line)
        if len(self._lines) == 1:
            self._finished, self._handle, self._text = [], None, ""
        self.update(at_once=True)
        try:
            yield
            self.update(at_once=True)
        finally:
            self._lines.remove(line)
        if self._lines or self._finished:  # what failed, or was alone, stays as it was
            self.update(at_once=True)

    def finish(self, text: str) -> None:
        """Keep a line above those that change."""
        self._finished.append(text)
        self.update(at_once=True)

    def update(self, at_once: bool = False) -> None:
        """Show the lines as they are now, unless that was done half a second ago."""
        now = time.monotonic()
        if not at_once and now - self._updated < SECONDS_BETWEEN_UPDATES:
            return
        text = "\n".join(filter(None, [*self._finished, *(line(WIDTH) for line in tuple(self._lines))]))
        if not text or text == self._text:
            return
        self._text, self._updated = text, now
        data = {"text/plain": text}
        if self._handle is None:
            from IPython.display import display

            self._handle = display(data, raw=True, display_id=True)
        else:
            self._handle.update(data, raw=True)
