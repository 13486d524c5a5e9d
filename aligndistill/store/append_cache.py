"""Keys to JSON values for network file systems: each process appends to a file of its own and reads those of all."""

import json
import logging
import os
import socket
import threading
import uuid
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from aligndistill.errors import DataError

_log = logging.getLogger(__name__)


class AppendCache:
    """A folder of JSONL files, each written by one process and never changed but at its end.

    A line that is torn or damaged counts as missing. What another process wrote is seen at the next `get_many`.

    Raises:
        DataError: the folder cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._values: dict[str, str] = {}
        self._read_to: dict[str, int] = {}
        self._own: IO[bytes] | None = None
        self._name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unusable(error) from error

    def get_many(self, keys: Sequence[str]) -> dict[str, Any]:
        """The values of those keys that are there."""
        with self._lock:
            self._read()
            return {key: json.loads(self._values[key]) for key in keys if key in self._values}

    def put(self, key: str, value: Any) -> None:
        """Keep a value. When this returns, the value outlives the process."""
        text = json.dumps(value)
        line = json.dumps({"key": key, "value": text, "crc32": _crc32(key, text)}).encode() + b"\n"
        with self._lock:
            try:
                self._own = self._own or (self._folder / self._name).open("ab")
                self._own.write(line)
                self._own.flush()
            except OSError as error:
                raise self._unusable(error) from error
            self._values[key] = text

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            if self._own is not None:
                self._own.close()
                self._own = None

    def _read(self) -> None:
        """Take in what was appended since the last time."""
        try:
            for path in sorted(self._folder.glob("*.jsonl")):
                if path.name == self._name:
                    continue
                with path.open("rb") as file:
                    file.seek(self._read_to.get(path.name, 0))
                    data = file.read()
                whole = data[: data.rfind(b"\n") + 1]
                self._read_to[path.name] = self._read_to.get(path.name, 0) + len(whole)
                damaged = sum(not self._take(line) for line in whole.splitlines())
                if damaged:
                    _log.warning("the cache %s holds %d damaged values: taken as missing", path, damaged)
        except OSError as error:
            raise self._unusable(error) from error

    def _take(self, line: bytes) -> bool:
        try:
            entry = json.loads(line)
            key, text, crc32 = entry["key"], entry["value"], entry["crc32"]
        except (ValueError, KeyError, TypeError):
            return False
        if not (isinstance(key, str) and isinstance(text, str) and _crc32(key, text) == crc32):
            return False
        self._values[key] = text
        return True

    def _unusable(self, error: OSError) -> DataError:
        return DataError(f"the cache {self._folder} cannot be used: {error}. Check that it can be written and has space left.")


def _crc32(key: str, text: str) -> int:
    return zlib.crc32(f"{key} {text}".encode("utf-8", "surrogatepass"))
