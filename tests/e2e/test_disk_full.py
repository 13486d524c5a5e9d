"""A disk that fills up while a run writes: a clear message, and with room the same command comes to the same end."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.command import ForkServer
from tests.e2e.conftest import FinishedRun
from tests.e2e.reports import comparable_report
from tests.e2e.small_run import small_config, write_config, write_data

# Bytes that the largest file of a run may have; each makes another kind of write fail.
LIMITS = {"rows": 3_000, "tokenizer": 20_000, "weights": 70_000, "optimizer": 200_000}


def assert_full(code: int, errors: str) -> None:
    assert code == 3, errors
    assert "Traceback" not in errors
    message = errors.partition("error: ")[2]
    assert "disk is full" in message or "space left" in message, errors
    assert "same command" in message


def test_files_that_cannot_grow(small_run: FinishedRun, forked: ForkServer, tmp_path: Path) -> None:
    write_data(tmp_path)
    write_config(tmp_path / "small.yaml", small_config())
    for limit in LIMITS.values():
        ended = forked.run(tmp_path, "run", "small.yaml", file_size_limit=limit)
        assert_full(ended.code, ended.errors)
    ended = forked.run(tmp_path, "run", "small.yaml")
    assert ended.code == 0, ended.errors
    assert comparable_report(tmp_path) == comparable_report(small_run.folder)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 2 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("only root may mount a disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk(small_run: FinishedRun, forked: ForkServer, small_disk: Path) -> None:
    write_data(small_disk)
    write_config(small_disk / "small.yaml", small_config())
    fullness = [1_900_000, 1_500_000, 1_000_000, 600_000]
    filler = small_disk / "filler"
    for size in fullness:
        filler.write_bytes(b"")
        with contextlib.suppress(OSError):  # as full as it gets
            filler.write_bytes(bytes(size))
        ended = forked.run(small_disk, "run", "small.yaml")
        assert_full(ended.code, ended.errors)
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    ended = forked.run(small_disk, "run", "small.yaml")
    assert ended.code == 0, ended.errors
    assert comparable_report(small_disk) == comparable_report(small_run.folder)
