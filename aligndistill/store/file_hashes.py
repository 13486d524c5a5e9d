"""SHA-256 of files, cached between processes: an unchanged file of 100 GB is read once.

A hash is valid for the file's path, size, inode, mtime and ctime. Each file has its own entry in
`$XDG_CACHE_HOME/aligndistill/file_hashes` (default: `~/.cache`), written under a temporary name and renamed, so that concurrent
writers do not conflict. An unreadable entry counts as missing.
"""

import contextlib
import hashlib
import json
import logging
import os
import tempfile
import time
from pathlib import Path

CACHED_FROM_BYTES = 2**20
"""Smaller files are hashed each time, which costs no more than looking up an entry."""

RACY_SECONDS = 2.0
"""A file modified this recently may change again without a new mtime (FAT's resolution is 2 s), so its hash is not cached.
"""

LOGGED_FROM_BYTES = 8 * 2**30
"""Reading larger files is logged, because it takes long."""

_log = logging.getLogger(__name__)


def file_hash(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal; from the cache if the file has not changed."""
    path = path.absolute()
    before = _state(path)
    if before["size"] < CACHED_FROM_BYTES:
        return _read(path)
    entry = Path(_folder(), f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}.json")
    known = _cached(entry, before)
    if known is not None:
        return known
    if before["size"] >= LOGGED_FROM_BYTES:
        _log.warning("hashing %s (%.0f GiB): the hash is cached until the file changes", path, before["size"] / 2**30)
    started = time.time()
    found = _read(path)
    changed = max(before["mtime_ns"], before["ctime_ns"]) / 1e9
    if _state(path) == before and changed < started - RACY_SECONDS:
        _write_entry(entry, {**before, "path": str(path), "sha256": found})
    return found


def _read(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _state(path: Path) -> dict[str, int]:
    """The attributes that change when the file does."""
    status = path.stat()
    return {"size": status.st_size, "inode": status.st_ino, "mtime_ns": status.st_mtime_ns, "ctime_ns": status.st_ctime_ns}


def _folder() -> str:
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # the XDG standard: relative paths are ignored
        base = os.path.expanduser("~/.cache")
    return os.path.join(base, "aligndistill", "file_hashes")


def _cached(entry: Path, state: dict[str, int]) -> str | None:
    try:
        content = json.loads(entry.read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or any(content.get(name) != value for name, value in state.items()):
        return None
    sha256 = content.get("sha256")
    return sha256 if isinstance(sha256, str) and len(sha256) == 64 else None


def _write_entry(entry: Path, content: dict[str, int | str]) -> None:
    """Write a cache entry; a missing or read-only home directory is not an error."""
    if not entry.is_absolute():
        return
    with contextlib.suppress(OSError):
        entry.parent.mkdir(parents=True, exist_ok=True)
        number, partial = tempfile.mkstemp(dir=entry.parent, suffix=".partial")
        try:
            with os.fdopen(number, "w") as file:
                json.dump(content, file)
            os.replace(partial, entry)
        except BaseException:
            os.unlink(partial)
            raise
