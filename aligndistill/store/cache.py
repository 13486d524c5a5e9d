"""A persistent cache of replies: keys to JSON values that survive a killed process."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aligndistill.store.append_cache import AppendCache
from aligndistill.store.file_systems import is_on_network
from aligndistill.store.sqlite_cache import SqliteCache


def cache_key(**parts: Any) -> str:
    """A cache key: the SHA-256 of the canonical JSON of `parts`."""
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


class Cache:
    """String keys to JSON values, safe to share between threads and processes.

    A SQLite file on a local disk; on a network file system, where that is not safe, append-only files in a folder next to it.
    A damaged file is moved to `<name>.damaged-<n>` and a new one is started; a damaged value counts as missing. Both log a warning.

    Raises:
        DataError: it cannot be used, and a new file would not help (no permission, no space, locked).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._backend: SqliteCache | AppendCache = (
            AppendCache(path.with_suffix(".segments")) if is_on_network(path) else SqliteCache(path)
        )

    def get_many(self, keys: Sequence[str]) -> dict[str, Any]:
        """The values of the keys that are present."""
        return self._backend.get_many(keys)

    def put(self, key: str, value: Any) -> None:
        """Store a value. When this returns, the value survives the end of the process."""
        self._backend.put(key, value)

    def close(self) -> None:
        """Close the files."""
        self._backend.close()
