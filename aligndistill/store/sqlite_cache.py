"""Keys to JSON values in a SQLite file that survives a killed process.

In write-ahead mode, so every process that opens the file must be on the same machine (no network file systems).
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

    A damaged file is set aside as `<name>.damaged-<n>` and a new one is begun; a damaged value counts as missing.
    Both are said in a warning.

    Raises:
        DataError: the file cannot be used for a reason that a new file would not mend (no permission, no space, locked).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        with self._reasons():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = self._open()

    def get_many(self, keys: Sequence[str]) -> dict[str, Any]:
        """The values of those keys that are there."""
        return self._use(lambda: self._select(keys))

    def put(self, key: str, value: Any) -> None:
        """Keep a value. When this returns, the value outlives the process."""
        text = json.dumps(value)
        self._use(lambda: self._insert(key, text))

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._connection.close()

    def _select(self, keys: Sequence[str]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for start in range(0, len(keys), KEYS_PER_QUERY):
            some = keys[start : start + KEYS_PER_QUERY]
            marks = ",".join("?" * len(some))
            for key, value, crc32 in self._connection.execute(f"SELECT * FROM entries WHERE key IN ({marks})", some):
                # SQLite itself notices neither a flipped bit in a value nor one of another type.
                if isinstance(key, bytes) and isinstance(value, bytes) and zlib.crc32(value) == crc32:
                    found[key.decode()] = json.loads(value)
                else:
                    _log.warning("the cache %s holds a damaged value: taken as missing", self.path)
        return found

    def _insert(self, key: str, text: str) -> None:
        self._connection.execute("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", (key, text, zlib.crc32(text.encode())))

    def _use(self, work: Callable[[], T]) -> T:
        with self._lock, self._reasons():
            try:
                return work()
            except sqlite3.DatabaseError as error:
                if not _means_damage(error):
                    raise
            self._connection.close()
            self._connection = self._open()
            return work()

    def _open(self) -> sqlite3.Connection:
        # One process at a time, lest two set the file aside and the second take away the first one's new file.
        with self.path.with_name(self.path.name + ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                return self._connect()
            except sqlite3.DatabaseError as error:
                if not _means_damage(error):
                    raise
                self._set_aside(error)
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
                raise sqlite3.DatabaseError(f"it has another form, version {version}")
            connection.execute(f"PRAGMA user_version={VERSION}")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _set_aside(self, error: sqlite3.DatabaseError) -> None:
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.damaged-{number}")).exists():
            number += 1
        for suffix in ("", "-wal", "-shm"):  # the log belongs to the damaged file: a new one must not replay it
            part = self.path.with_name(self.path.name + suffix)
            if part.exists():
                part.rename(aside.with_name(aside.name + suffix))
        _log.warning("the cache %s is damaged (%s): set aside as %s, beginning a new one", self.path, error, aside.name)

    @contextlib.contextmanager
    def _reasons(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.OperationalError, OSError) as error:
            raise DataError(
                f"the cache {self.path} cannot be used: {error}. "
                "Check that its folder is on a local disk, can be written, and has space left."
            ) from error


def _means_damage(error: sqlite3.DatabaseError) -> bool:
    # The subclasses of DatabaseError say something else: locked, read-only, no space, wrong use.
    return type(error) is sqlite3.DatabaseError
