"""A run's events, read as they are appended: what is kept does not grow with the length of the run."""

import threading
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aligndistill.store.append_log import entries_in, whole_lines

SHOWN_EVENTS = 12


@dataclass
class LatestEvents:
    """What is known of the command that was started last.

    Attributes:
        first: its `begin`, whose note is the command.
        of_stage: the last event of each stage.
        failed: its last failure.
        log: its last events.
    """

    first: Mapping[str, Any] | None = None
    of_stage: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    failed: Mapping[str, Any] | None = None
    log: deque[Mapping[str, Any]] = field(default_factory=lambda: deque(maxlen=SHOWN_EVENTS))

    @property
    def last(self) -> Mapping[str, Any] | None:
        """The last event."""
        return self.log[-1] if self.log else None

    def add(self, event: Mapping[str, Any]) -> None:
        """Take an event of this command into account."""
        if event["event"] == "begin":
            self.first = self.first or event
        if event["event"] == "fail":
            self.failed = event
        if event["stage"]:
            self.of_stage[event["stage"]] = event
        self.log.append(event)


class EventTail:
    """Follows an event file from where it was read last, for all pages that show it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._read_to = 0
        self._latest = LatestEvents()

    def read(self) -> LatestEvents:
        """The latest events, with what was appended since the last call."""
        with self._lock:
            for event in self._new():
                if event["event"] == "begin":
                    launched = event.get("note") is None  # a part of the command before
                    self._latest = LatestEvents(self._latest.first if launched else None)
                self._latest.add(event)
            known = self._latest
            return LatestEvents(known.first, dict(known.of_stage), known.failed, known.log.copy())

    def _new(self) -> Iterator[dict[str, Any]]:
        """Whole new lines; those that a killed process left incomplete are skipped."""
        try:
            with self._path.open("rb") as file:
                if file.seek(0, 2) < self._read_to:  # another file by now
                    self._read_to, self._latest = 0, LatestEvents()
                file.seek(self._read_to)
                data = file.read()
        except OSError:
            return
        whole = whole_lines(data)
        self._read_to += len(whole)
        for entry in entries_in(whole):
            if isinstance(entry.get("event"), str):
                yield {"stage": None, **entry}
