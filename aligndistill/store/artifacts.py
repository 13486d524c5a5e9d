"""Reads and writes artifacts: the folders of stages, addressed by the fingerprints of their inputs and settings.

`<store>/<stage>-<fingerprint>/` contains the result of one stage. The fingerprint hashes the stage's function and version, the
settings that affect its result, and the fingerprints of its inputs. `manifest.json` is written last: a folder without it is
unfinished, and running the same command again resumes it.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from aligndistill.errors import DataError
from aligndistill.store.file_hashes import file_hash

MANIFEST = "manifest.json"
SCRATCH = "scratch"
"""The sub-folder of a stage's folder for temporary data, deleted when the stage is finished (checkpoints, partial answers)."""

LIBRARIES = ("aligndistill", "torch", "transformers", "trl", "datasets", "deepspeed", "peft", "bitsandbytes", "evaluate")


class FileEntry(BaseModel):
    """One file of a finished folder."""

    model_config = ConfigDict(frozen=True)
    size: int
    sha256: str


class Manifest(BaseModel):
    """The manifest of a finished stage.

    Attributes:
        counts: records in and out.
        dropped: dropped records, by reason.
        metrics: measurements (seconds, token usage, losses ...).
    """

    model_config = ConfigDict(frozen=True)
    stage: str
    fingerprint: str
    files: dict[str, FileEntry]
    counts: dict[str, int] = {}
    dropped: dict[str, int] = {}
    metrics: dict[str, Any] = {}
    wall_seconds: float
    versions: dict[str, str] = {}


def content_fingerprint(path: Path) -> str:
    """A hash of the content of a file or folder named in a config, so that changed data changes fingerprints.

    Files are hashed completely; hashes of large files are cached (`file_hashes.py`).
    """
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
        size = file.stat().st_size
        digest.update(f"{file.relative_to(path) if path.is_dir() else ''}:{size}:".encode())
        digest.update(bytes.fromhex(file_hash(file)))
    return digest.hexdigest()[:16]


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a finished folder; None if it is missing, unfinished, or has files that are missing or of the wrong size."""
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValidationError:
        return None
    complete = all(
        (folder / name).is_file() and (folder / name).stat().st_size == entry.size for name, entry in manifest.files.items()
    )
    return manifest if complete else None


_verified: set[Path] = set()
"""The folders that this process has verified against their manifests."""


def find_damage(folder: Path) -> str | None:
    """The first file of a finished folder whose hash differs from its manifest; None if all match. Checked once per process.

    Reads every file, except large ones whose hash is cached (`file_hashes.py`); `read_manifest` compares only sizes.
    """
    folder = folder.absolute()
    manifest = read_manifest(folder)
    if manifest is None or folder in _verified:
        return None
    for name, entry in manifest.files.items():
        if file_hash(folder / name) != entry.sha256:
            return name
    _verified.add(folder)
    return None


def finish(
    folder: Path,
    *,
    stage: str,
    stage_fingerprint: str,
    counts: Mapping[str, int],
    dropped: Mapping[str, int],
    metrics: Mapping[str, Any],
    wall_seconds: float,
) -> Manifest:
    """Hash and sync every file of the folder, write its manifest atomically, then delete the scratch folder.

    When this returns, the result also survives a power failure.
    """
    files = {}
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = str(file.relative_to(folder))
        if name not in {MANIFEST, ".lock"} and not name.endswith(".partial") and not name.startswith(SCRATCH + "/"):
            with file.open("rb") as handle:
                sha256 = hashlib.file_digest(handle, "sha256").hexdigest()
                os.fsync(handle.fileno())
            files[name] = FileEntry(size=file.stat().st_size, sha256=sha256)
    for place in {folder.parent, folder, *((folder / name).parent for name in files)}:  # syncs the directory entries of the files
        _sync_folder(place)
    manifest = Manifest(
        stage=stage,
        fingerprint=stage_fingerprint,
        files=files,
        counts=dict(counts),
        dropped=dict(dropped),
        metrics=dict(metrics),
        wall_seconds=wall_seconds,
        versions=library_versions(),
    )
    write_last(folder / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
    shutil.rmtree(folder / SCRATCH, ignore_errors=True)
    return manifest


def write_last(path: Path, text: str) -> None:
    """Write a file atomically: sync it under a temporary name, then rename it. Its existence marks everything before it as done."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    """Sync the directory entries of a folder."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def move_aside(folder: Path) -> Path:
    """Move a damaged finished folder to `<name>.damaged-<n>`, for inspection; returns its new path."""
    number = 1
    while (aside := folder.with_name(f"{folder.name}.damaged-{number}")).exists():
        number += 1
    shutil.move(folder, aside)
    return aside


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder for this process; the lock is released when the process ends, however it ends.

    Raises:
        DataError: another process has locked it, or it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (NotADirectoryError, FileExistsError, PermissionError) as error:
        raise DataError(f"cannot create the folder {folder} ({error.strerror}). Set runtime.store to a writable folder.") from None
    with (folder / ".lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise DataError(
                f"another process ({file.read().strip() or 'unknown'}) is running in {folder}. Wait for it, or stop it."
            ) from None
        file.truncate(0)
        file.write(f"pid {os.getpid()}")
        file.flush()
        yield


@cache
def library_versions() -> dict[str, str]:
    """The versions of the libraries that results may depend on."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
