import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from aligndistill.store import file_hashes
from aligndistill.store.artifacts import content_fingerprint
from aligndistill.store.file_hashes import CACHED_FROM_BYTES, file_hash

SIZE = CACHED_FROM_BYTES + 10


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "aligndistill" / "file_hashes"


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as old from their first moment."""
    monkeypatch.setattr(file_hashes, "RACY_SECONDS", -3600.0)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read."""
    names: list[str] = []
    really = file_hashes._read

    def noted(path: Path) -> str:
        names.append(path.name)
        return really(path)

    monkeypatch.setattr(file_hashes, "_read", noted)
    return names


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    (tmp_path / "weights").write_bytes(b"w" * SIZE)
    return tmp_path / "weights"


def overwrite(path: Path, place: int, text: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        file.write(text)


def test_a_change_in_the_middle_of_a_large_file_is_another_content(tmp_path: Path) -> None:
    size = 64 * 2**20 + 10
    path = tmp_path / "weights"
    path.touch()
    os.truncate(path, size)
    before = content_fingerprint(path)
    overwrite(path, size // 2, b"x")
    assert content_fingerprint(path) != before


@pytest.mark.usefixtures("settled")
def test_an_unchanged_file_is_read_once(weights: Path, read: list[str]) -> None:
    expected = hashlib.sha256(b"w" * SIZE).hexdigest()
    assert [file_hash(weights), file_hash(weights)] == [expected] * 2
    assert read == ["weights"]


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("change", ["written", "replaced", "written with its old time"])
def test_a_changed_file_is_read_again(weights: Path, change: str) -> None:
    before, times = file_hash(weights), (weights.stat().st_atime_ns, weights.stat().st_mtime_ns)
    if change == "replaced":
        other = weights.with_name("other")
        other.write_bytes(b"v" * SIZE)
        other.replace(weights)
    else:
        overwrite(weights, SIZE // 2, b"v")
    if change == "written with its old time":
        os.utime(weights, ns=times)
    assert file_hash(weights) not in (before, "")
    assert file_hash(weights) == hashlib.sha256(weights.read_bytes()).hexdigest()


def test_what_was_changed_a_moment_ago_is_not_remembered(weights: Path, read: list[str], cache: Path) -> None:
    """It may change once more within the same tick of its file system's clock."""
    assert file_hash(weights) == file_hash(weights)
    assert read == ["weights"] * 2
    assert not cache.exists()


@pytest.mark.usefixtures("settled")
def test_small_files_are_read_each_time(tmp_path: Path, read: list[str], cache: Path) -> None:
    (tmp_path / "small").write_bytes(b"s")
    assert file_hash(tmp_path / "small") == file_hash(tmp_path / "small") == hashlib.sha256(b"s").hexdigest()
    assert read == ["small"] * 2
    assert not cache.exists()


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("damage", [b"", b"{", b"\xff", b"[]", b"null"])
def test_a_damaged_entry_counts_as_missing(weights: Path, read: list[str], cache: Path, damage: bytes) -> None:
    expected = file_hash(weights)
    (entry,) = cache.iterdir()
    entry.write_bytes(damage)
    assert [file_hash(weights), file_hash(weights)] == [expected] * 2
    assert read == ["weights"] * 2


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("hash_of", [None, 7, "abc"])
def test_an_entry_without_a_hash_counts_as_missing(weights: Path, cache: Path, hash_of: object) -> None:
    expected = file_hash(weights)
    (entry,) = cache.iterdir()
    entry.write_text(json.dumps({**json.loads(entry.read_text()), "sha256": hash_of}))
    assert file_hash(weights) == expected


@pytest.mark.usefixtures("settled")
def test_many_may_remember_at_once(weights: Path, cache: Path, read: list[str]) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(file_hash, [weights] * 32))) == 1
    assert [entry.suffix for entry in cache.iterdir()] == [".json"]
    read.clear()
    file_hash(weights)
    assert read == []


@pytest.mark.usefixtures("settled")
def test_a_cache_that_cannot_be_written_costs_the_memory_alone(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert file_hash(weights) == hashlib.sha256(weights.read_bytes()).hexdigest()
