import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aligndistill.errors import DataError
from aligndistill.store.artifacts import (
    MANIFEST,
    SCRATCH,
    content_fingerprint,
    finish,
    locked,
    move_aside,
    read_manifest,
)


def finished(folder: Path) -> None:
    finish(
        folder,
        stage="rankings",
        stage_fingerprint="f" * 16,
        counts={"train": 2},
        dropped={"all tied": 1},
        metrics={"longer_wins": 0.5},
        wall_seconds=1.5,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "rankings-0123"
    (folder / "model").mkdir(parents=True)
    (folder / SCRATCH).mkdir()
    (folder / "rows.jsonl").write_text("{}\n")
    (folder / "model/weights").write_bytes(b"\0" * 100)
    (folder / SCRATCH / "partial").write_text("x")
    (folder / "rows.jsonl.partial").write_text("x")
    return folder


def test_content_is_what_a_file_holds_not_when_it_was_written(tmp_path: Path) -> None:
    one, other = tmp_path / "one.jsonl", tmp_path / "other.jsonl"
    one.write_text("a\n")
    other.write_text("a\n")
    os.utime(other, (1, 1))
    assert content_fingerprint(one) == content_fingerprint(other)
    other.write_text("b\n")
    assert content_fingerprint(one) != content_fingerprint(other)


def test_content_of_a_folder_is_its_files_and_their_names(tmp_path: Path) -> None:
    def folder(name: str, files: dict[str, str]) -> str:
        for file, text in files.items():
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).write_text(text)
        return content_fingerprint(tmp_path / name)

    same = folder("a", {"x": "1", "deep/y": "2"})
    assert folder("b", {"deep/y": "2", "x": "1"}) == same
    assert folder("c", {"x": "1", "deep/z": "2"}) != same
    assert folder("d", {"x": "2", "deep/y": "1"}) != same
    assert folder("e", {"x": "1", "deep/y": "2", "w": ""}) != same


def test_files_are_distinguished_by_size_and_every_byte(tmp_path: Path) -> None:
    def sparse(name: str, size: int, first: bytes = b"", last: bytes = b"\0") -> str:
        with (tmp_path / name).open("wb") as file:
            file.write(first)
            file.seek(size - len(last))
            file.write(last)
        return content_fingerprint(tmp_path / name)

    size = 2**21
    same = sparse("a", size)
    assert sparse("b", size) == same
    assert sparse("c", size + 1) != same
    assert sparse("d", size, first=b"x") != same
    assert sparse("e", size, last=b"x") != same
    assert sparse("f", size, last=b"x" + b"\0" * 2**20) != same


# ------------------------------------------------------------------------------------------------------------ manifests


def test_a_finished_folder_says_what_is_in_it(folder: Path) -> None:
    assert read_manifest(folder) is None
    finished(folder)
    manifest = read_manifest(folder)
    assert manifest is not None
    assert set(manifest.files) == {"rows.jsonl", "model/weights"}
    assert manifest.files["model/weights"].size == 100
    # sha256 of "{}\n"
    assert manifest.files["rows.jsonl"].sha256 == "ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356"
    assert (manifest.counts, manifest.dropped, manifest.wall_seconds) == ({"train": 2}, {"all tied": 1}, 1.5)
    assert {"aligndistill", "torch", "transformers"} <= manifest.versions.keys()
    assert not (folder / SCRATCH).exists()


def test_what_is_finished_is_synced_before_its_manifest_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    really = os.fsync

    def sync(number: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{number}"))
        really(number)

    monkeypatch.setattr(os, "fsync", sync)
    finished(folder)
    partial = str(folder / (MANIFEST + ".partial"))
    before = synced[: synced.index(partial)]
    names = ("", "model", "rows.jsonl", "model/weights")
    assert set(before) == {str(folder.parent), *(str(folder / name) for name in names)}
    assert synced[synced.index(partial) :] == [partial, str(folder)]


def test_a_folder_without_its_manifest_is_not_finished(folder: Path) -> None:
    finished(folder)
    (folder / MANIFEST).unlink()
    assert read_manifest(folder) is None
    (folder / (MANIFEST + ".partial")).write_text("{}")
    assert read_manifest(folder) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "rows.jsonl").unlink(),
        lambda folder: (folder / "rows.jsonl").write_text("{"),
        lambda folder: (folder / "model/weights").write_bytes(b"\0" * 101),
        lambda folder: (folder / MANIFEST).write_text((folder / MANIFEST).read_text()[:-20]),
        lambda folder: (folder / MANIFEST).write_text(""),
        lambda folder: (folder / MANIFEST).write_bytes(b"\xff\xfe"),
    ],
)
def test_a_damaged_folder_is_not_finished(folder: Path, damage: Any) -> None:
    finished(folder)
    assert read_manifest(folder) is not None
    damage(folder)
    assert read_manifest(folder) is None


def test_nothing_is_lost_when_folders_are_moved_away(folder: Path) -> None:
    finished(folder)
    first = move_aside(folder)
    folder.mkdir()
    second = move_aside(folder)
    assert not folder.exists()
    assert (first.name, second.name) == (f"{folder.name}.damaged-1", f"{folder.name}.damaged-2")
    assert (first / "rows.jsonl").is_file()


# ----------------------------------------------------------------------------------------------------------------- lock

HOLD = """
import sys, time
from pathlib import Path
from aligndistill.store.artifacts import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.process
def test_a_folder_belongs_to_one_process_until_that_ends(tmp_path: Path) -> None:
    folder = tmp_path / "rankings-0123"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(DataError, match=rf"pid {holder.pid}\b.*{folder.name}"), locked(folder):
            pytest.fail("two processes at once")
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with locked(folder):
            assert (folder / ".lock").read_text() == f"pid {os.getpid()}"
    finally:
        holder.kill()
        holder.wait()


def test_the_lock_is_not_part_of_what_was_made(folder: Path) -> None:
    with locked(folder):
        finished(folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    assert ".lock" not in manifest["files"]
    with locked(folder):
        pass
    assert read_manifest(folder) is not None


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"runtime\.store"), locked(tmp_path / "file" / "rankings-0123"):
        pass
