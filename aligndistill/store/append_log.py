"""A log file to which several processes append entries, one per line."""

import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class AppendLog:
    """An append-only JSONL file. Each entry is one write, so entries of several processes do not interleave.

    Incomplete lines, left by a killed process, are skipped.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        self._read_to = 0
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, b"\n")

    def add(self, entry: dict[str, Any]) -> None:
        """Append an entry; when this returns, it survives the end of the process."""
        os.write(self._file, json.dumps(entry).encode() + b"\n")

    def read_new(self) -> Iterator[dict[str, Any]]:
        """The entries appended by any process since the last call."""
        data = os.pread(self._file, os.fstat(self._file).st_size - self._read_to, self._read_to)
        whole = whole_lines(data)
        self._read_to += len(whole)
        yield from entries_in(whole)

    def lock(self, kind: int) -> None:
        """Lock the file (`fcntl.LOCK_SH` or `LOCK_EX`) until it is closed or the process ends.

        Raises:
            OSError: the file system has no locks.
        """
        fcntl.flock(self._file, kind)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def whole_lines(data: bytes) -> bytes:
    """The beginning of what was read, up to its last complete line."""
    return data[: data.rfind(b"\n") + 1]


def entries_in(lines: bytes) -> Iterator[dict[str, Any]]:
    """The entries on these lines; those that are no JSON objects are skipped."""
    for line in lines.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            yield entry
