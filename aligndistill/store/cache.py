"""Answers that were paid for, kept by content: keys to JSON values that survive a killed process."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aligndistill.store.append_cache import AppendCache
from aligndistill.store.file_systems import is_on_network
from aligndistill.store.sqlite_cache import SqliteCache


def cache_key(**parts: Any) -> str:
    """The key of what `parts` describe: the SHA-256 of their canonical JSON."""
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


class Cache:
    """String keys to JSON values, safe to share between threads and processes.

    A SQLite file on a local disk; on a network file system, where that is not safe, append-only files in a folder beside it.
    A damaged file is set aside and a new one is begun; a damaged value counts as missing. Both are said in a warning.

    Raises:
        DataError: it cannot be used for a reason that a new file would not mend (no permission, no space, locked).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._kept: SqliteCache | AppendCache = (
            AppendCache(path.with_suffix(".segments")) if is_on_network(path) else SqliteCache(path)
        )

    def get_many(self, keys: Sequence[str]) -> dict[str, Any]:
        """The values of those keys that are there."""
        return self._kept.get_many(keys)

    def put(self, key: str, value: Any) -> None:
        """Keep a value. When this returns, the value outlives the process."""
        self._kept.put(key, value)

    def close(self) -> None:
        """Let go of the files."""
        self._kept.close()
