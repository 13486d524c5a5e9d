"""`plan.json` and `events.jsonl` of a run's folder: what is to be done, and what happens, while it happens.

Written by the main process alone, and read by `aligndistill view`. No part of a fingerprint: they say how a run goes, not what it
results in.
"""

import fcntl
import json
import os
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aligndistill.config.secrets import redact
from aligndistill.processes.launch import LAST_ERROR
from aligndistill.processes.progress import Count, listening
from aligndistill.store.append_log import AppendLog

if TYPE_CHECKING:
    from aligndistill.store.stage import Pipeline

SECONDS_BETWEEN_EVENTS = 1.0
HEARTBEAT_EVENT_SECONDS = 10.0
RATE_AFTER_SECONDS = 5.0
"""No rate and time left before that: the first items say little."""


def plan_text(whole: "Pipeline", store: Path) -> str:
    """`plan.json`: every stage of the config in order, with its function, folder and inputs, and how many there are."""
    stages = [
        {
            "name": stage.name,
            "kind": stage.kind,
            "folder": str(stage.folder(store)),
            "inputs": list(dict.fromkeys(one.name for one in stage.inputs)),
            "trains": stage.trains,
        }
        for stage in whole.stages
    ]
    return json.dumps({"stages": stages, "totals": {"stages": len(stages)}}, indent=2) + "\n"


class Events:
    """Appends to `events.jsonl`: at most one count a second, and a heartbeat every ten seconds while a stage is running.

    An entry has `t` (Unix time, seconds), `stage`, `event` (`begin`, `start`, `progress`, `heartbeat`, `finish`, `fail`, `end`),
    `n` and `total`, `rate` (per second), `eta_s` (seconds), `spent` (requests, tokens and USD on servers) and `note`; null where
    unknown. An incomplete last line, left by a killed process, is closed when the file is opened.
    """

    def __init__(self, path: Path, spending: Callable[[], Mapping[str, float] | None] = lambda: None) -> None:
        self._log = AppendLog(path)
        self._spending = spending
        self._lock = threading.Lock()
        self._written_at = 0.0
        self._stage: str | None = None
        self._stage_began = 0.0
        self._last: dict[str, Any] = {}
        self.failed = False

    def add(self, event: str, **values: Any) -> None:
        """Append an entry now."""
        with self._lock:
            self._written_at = time.monotonic()
            entry = {**dict.fromkeys(("n", "total", "rate", "eta_s", "spent", "note")), **values}
            self._log.add({"t": round(time.time(), 3), "stage": self._stage, "event": event, **entry})

    def count(self, counted: Count) -> None:
        """Note a running count; written if the last entry is a second old."""
        known = time.monotonic() - self._stage_began >= RATE_AFTER_SECONDS and counted.per_second > 0
        left = (counted.total - counted.done) / counted.per_second if known and counted.total is not None else None
        label = "" if counted.label == self._stage else counted.label
        self._last = {
            "n": counted.done,
            "total": counted.total,
            "rate": round(counted.per_second, 4) if known else None,
            "eta_s": round(left, 1) if left is not None else None,
            "note": "; ".join(filter(None, (label, counted.note))) or None,
        }
        if time.monotonic() - self._written_at >= SECONDS_BETWEEN_EVENTS:
            self.add("progress", **self._last, spent=self._spending())

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[str], None]]:
        """Record a stage from its start to its end or failure. The block calls what it is given with the result's summary."""
        self._stage, self._stage_began, self._last = name, time.monotonic(), {}
        summary: list[str] = []
        self.add("start")
        try:
            yield summary.append
        except BaseException as error:
            self.failed = True
            self.add("fail", **{**self._last, "note": message_of(error)})
            raise
        else:
            self.add("finish", **{**self._last, "note": "".join(summary) or None}, spent=self._spending())
        finally:
            self._stage = None

    def beat(self) -> None:
        """Append a heartbeat if a stage is running and nothing was written for ten seconds."""
        if self._stage is not None and time.monotonic() - self._written_at >= HEARTBEAT_EVENT_SECONDS:
            self.add("heartbeat", **self._last)

    def hold(self) -> None:
        """Hold a shared lock on the file until this process ends, however it ends: it tells a reader that the run is alive."""
        with suppress(OSError):  # a file system without locks; readers then go by the heartbeats
            self._log.lock(fcntl.LOCK_SH)

    def close(self) -> None:
        """Close the file, and with it give up the lock."""
        self._log.close()


def message_of(error: BaseException) -> str:
    """The error's message without keys, or its name."""
    return redact(str(error)) or type(error).__name__


@contextmanager
def recorded(path: Path, spending: Callable[[], Mapping[str, float] | None]) -> Iterator[Events]:
    """Record what happens in the block: its progress bars, and heartbeats by a thread of its own."""
    events = Events(path, spending)
    events.hold()
    launched = LAST_ERROR in os.environ  # the user's command is that of the process that started the launcher
    events.add("begin", note=None if launched else redact(shlex.join(["aligndistill", *sys.argv[1:]])))
    over = threading.Event()

    def beats() -> None:
        while not over.wait(1.0):
            events.beat()

    thread = threading.Thread(target=beats, name="heartbeat events", daemon=True)
    thread.start()
    try:
        with listening(events.count):
            yield events
        events.add("end")
    except BaseException as error:
        if not events.failed:
            events.add("fail", note=message_of(error))
        raise
    finally:
        over.set()
        thread.join()
        events.close()
