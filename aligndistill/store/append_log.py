"""Amounts that several processes write into one file, a line each, and add up."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class AppendLog:
    """A JSONL file that is only appended to. An entry is one write, so those of several processes do not mix.

    A line that a kill tore is passed over.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        self._read_to = 0
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, b"\n")

    def add(self, entry: dict[str, Any]) -> None:
        """Write an entry; it outlives the process when this returns."""
        os.write(self._file, json.dumps(entry).encode() + b"\n")

    def read_new(self) -> Iterator[dict[str, Any]]:
        """The entries, of whichever process, since the last time this was asked."""
        data = os.pread(self._file, os.fstat(self._file).st_size - self._read_to, self._read_to)
        whole = data[: data.rfind(b"\n") + 1]
        self._read_to += len(whole)
        for line in whole.splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict):
                yield entry

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)
