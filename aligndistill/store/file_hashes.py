"""SHA-256 of files, remembered from one process to the next: an unchanged file of 100 GB is read once.

What a hash is remembered by is the file's path, size, inode and times of change (contents and attributes). Each file has an entry
of its own in `$XDG_CACHE_HOME/aligndistill/file_hashes` (`~/.cache` where that is not set), written under another name and renamed:
writers do not disturb each other, and an entry that cannot be read counts as missing.
"""

import contextlib
import hashlib
import json
import logging
import os
import tempfile
import time
from pathlib import Path

REMEMBERED_FROM_BYTES = 2**20
"""Smaller files are read each time: that costs no more than looking for their entry."""

RACY_SECONDS = 2.0
"""A file changed so short a time before it is read may change once more without another time of change (FAT's have two seconds):
its hash is not remembered.
"""

TOLD_FROM_BYTES = 8 * 2**30
"""Reading this takes so long that it is told."""

_log = logging.getLogger(__name__)


def file_hash(path: Path) -> str:
    """The SHA-256 of all that a file holds, in hexadecimal; from memory where the file has not changed since it was read."""
    path = path.absolute()
    before = _state(path)
    if before["size"] < REMEMBERED_FROM_BYTES:
        return _read(path)
    entry = Path(_folder(), f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}.json")
    known = _remembered(entry, before)
    if known is not None:
        return known
    if before["size"] >= TOLD_FROM_BYTES:
        _log.warning("reading %s (%.0f GiB): it is read again only when it has changed", path, before["size"] / 2**30)
    started = time.time()
    found = _read(path)
    changed = max(before["mtime_ns"], before["ctime_ns"]) / 1e9
    if _state(path) == before and changed < started - RACY_SECONDS:
        _remember(entry, {**before, "path": str(path), "sha256": found})
    return found


def _read(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _state(path: Path) -> dict[str, int]:
    """What changes when the file does."""
    status = path.stat()
    return {"size": status.st_size, "inode": status.st_ino, "mtime_ns": status.st_mtime_ns, "ctime_ns": status.st_ctime_ns}


def _folder() -> str:
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # the standard of these folders says that a relative path is to be ignored
        base = os.path.expanduser("~/.cache")
    return os.path.join(base, "aligndistill", "file_hashes")


def _remembered(entry: Path, state: dict[str, int]) -> str | None:
    try:
        kept = json.loads(entry.read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(kept, dict) or any(kept.get(name) != value for name, value in state.items()):
        return None
    sha256 = kept.get("sha256")
    return sha256 if isinstance(sha256, str) and len(sha256) == 64 else None


def _remember(entry: Path, content: dict[str, int | str]) -> None:
    """A home that cannot be written, or that is not known, costs the memory, not the run."""
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
