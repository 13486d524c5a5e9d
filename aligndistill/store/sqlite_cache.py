"""A key-value cache in a SQLite file that survives a killed process.

It uses write-ahead logging, so all processes that open the file must be on the same machine (no network file systems).
"""

import contextlib
import fcntl
import json
import logging
import sqlite3
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from aligndistill.errors import DataError

T = TypeVar("T")

_log = logging.getLogger(__name__)

BUSY_SECONDS = 60.0
KEYS_PER_QUERY = 500  # SQLite builds may limit the variables of a statement to 999
VERSION = 1
COLUMNS = (b"key", b"value", b"crc32")


class SqliteCache:
    """String keys to JSON values in one file, safe to share between threads and processes.

    A damaged file is moved to `<name>.damaged-<n>` and a new one is started; a damaged value counts as missing.
    Both log a warning.

    Raises:
        DataError: the file cannot be used, and a new file would not help (no permission, no space, locked).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        with self._as_data_error():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = self._open()

    def get_many(self, keys: Sequence[str]) -> dict[str, Any]:
        """The values of the keys that are present."""
        return self._use(lambda: self._select(keys))

    def put(self, key: str, value: Any) -> None:
        """Store a value. When this returns, the value survives the end of the process."""
        text = json.dumps(value)
        self._use(lambda: self._insert(key, text))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def _select(self, keys: Sequence[str]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for start in range(0, len(keys), KEYS_PER_QUERY):
            some = keys[start : start + KEYS_PER_QUERY]
            marks = ",".join("?" * len(some))
            for key, value, crc32 in self._connection.execute(f"SELECT * FROM entries WHERE key IN ({marks})", some):
                # SQLite detects neither a flipped bit in a value nor a value of another type.
                if isinstance(key, bytes) and isinstance(value, bytes) and zlib.crc32(value) == crc32:
                    found[key.decode()] = json.loads(value)
                else:
                    _log.warning("the cache %s contains a damaged value: treating it as missing", self.path)
        return found

    def _insert(self, key: str, text: str) -> None:
        self._connection.execute("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", (key, text, zlib.crc32(text.encode())))

    def _use(self, action: Callable[[], T]) -> T:
        with self._lock, self._as_data_error():
            try:
                return action()
            except sqlite3.DatabaseError as error:
                if not _means_damage(error):
                    raise
            self._connection.close()
            self._connection = self._open()
            return action()

    def _open(self) -> sqlite3.Connection:
        # One process at a time: otherwise a second process could move away the new file of the first.
        with self.path.with_name(self.path.name + ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                return self._connect()
            except sqlite3.DatabaseError as error:
                if not _means_damage(error):
                    raise
                self._move_damaged(error)
            return self._connect()

    def _connect(self) -> sqlite3.Connection:
        # isolation_level=None commits each statement by itself.
        connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        connection.text_factory = bytes
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS entries "
                "(key TEXT PRIMARY KEY, value TEXT NOT NULL, crc32 INTEGER NOT NULL) WITHOUT ROWID"
            )
            (finding,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if finding != b"ok":
                raise sqlite3.DatabaseError(finding.decode())
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            columns = tuple(name for _, name, *_ in connection.execute("PRAGMA table_info(entries)"))
            if version not in (0, VERSION) or columns != COLUMNS:
                raise sqlite3.DatabaseError(f"unknown format, version {version}")
            connection.execute(f"PRAGMA user_version={VERSION}")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _move_damaged(self, error: sqlite3.DatabaseError) -> None:
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.damaged-{number}")).exists():
            number += 1
        for suffix in ("", "-wal", "-shm"):  # the WAL belongs to the damaged file and must not be replayed into a new one
            part = self.path.with_name(self.path.name + suffix)
            if part.exists():
                part.rename(aside.with_name(aside.name + suffix))
        _log.warning("the cache %s is damaged (%s): moved to %s, starting a new one", self.path, error, aside.name)

    @contextlib.contextmanager
    def _as_data_error(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.OperationalError, OSError) as error:
            raise DataError(
                f"the cache {self.path} cannot be used: {error}. "
                "Check that its folder is on a local disk and writable, and that there is disk space."
            ) from error


def _means_damage(error: sqlite3.DatabaseError) -> bool:
    # The subclasses of DatabaseError are for other errors: locked, read-only, no space, wrong use.
    return type(error) is sqlite3.DatabaseError
