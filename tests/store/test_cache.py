import fcntl
import multiprocessing
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligndistill.errors import DataError
from aligndistill.store import file_systems
from aligndistill.store import sqlite_cache as database
from aligndistill.store.cache import Cache, cache_key
from tests.store.killing import put_until_killed

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.text("abcxyzABCXYZ_àßλж名", min_size=1)
"""Of arguments. All of Python's names would take seconds to list."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deeper" / "cache.sqlite"


def test_values_are_found_again_by_another_process_and_unknown_keys_are_missing(path: Path) -> None:
    Cache(path).put("k", {"reply": "\ud800 é", "logprobs": [-0.1, None]})
    assert Cache(path).get_many(["k", "absent"]) == {"k": {"reply": "\ud800 é", "logprobs": [-0.1, None]}}


def test_more_keys_than_one_query_takes(path: Path) -> None:
    cache = Cache(path)
    for number in range(1203):
        cache.put(str(number), number)
    assert cache.get_many([str(number) for number in range(-5, 1210)]) == {str(number): number for number in range(1203)}


def test_the_last_value_of_a_key_stays(path: Path) -> None:
    cache = Cache(path)
    cache.put("k", 1)
    cache.put("k", 2)
    assert cache.get_many(["k"]) == {"k": 2}


@given(parts=st.dictionaries(NAMES, JSON, max_size=4))
def test_a_key_depends_on_content_and_not_on_order(parts: dict[str, object]) -> None:
    key = cache_key(**parts)
    assert key == cache_key(**dict(reversed(parts.items())))
    assert key != cache_key(**parts, one_more=None)
    assert len(key) == 64


def test_threads_share_one_cache(path: Path) -> None:
    cache = Cache(path)

    def write(worker: int) -> None:
        for number in range(50):
            cache.put(f"{worker}-{number}", number)

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(cache.get_many([f"{worker}-{number}" for worker in range(8) for number in range(50)])) == 400


def _open_and_write(path: Path, worker: int, start: Any) -> None:
    start.wait(20)
    cache = Cache(path)
    for number in range(25):
        cache.put(f"{worker}-{number}", number)


@pytest.mark.process
@pytest.mark.parametrize("damaged_before", [False, True])
def test_processes_share_one_file(path: Path, damaged_before: bool) -> None:
    if damaged_before:
        path.parent.mkdir()
        path.write_bytes(b"not a database " * 1000)
    context = multiprocessing.get_context("fork")
    start = context.Barrier(8)
    processes = [context.Process(target=_open_and_write, args=(path, worker, start)) for worker in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 8
    assert len(Cache(path).get_many([f"{w}-{n}" for w in range(8) for n in range(25)])) == 200
    assert len(list(path.parent.glob("*.damaged-*"))) == damaged_before


def test_only_one_process_at_a_time_opens_and_mends_the_file(path: Path) -> None:
    path.parent.mkdir()
    opening = threading.Thread(target=Cache, args=(path,), daemon=True)
    with path.with_name("cache.sqlite.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        opening.start()
        opening.join(0.3)
        assert not path.exists()
    opening.join(10)
    assert path.exists()


@pytest.mark.process
def test_what_was_put_survives_kill_9(path: Path) -> None:
    reported = put_until_killed("from aligndistill.store.cache import Cache", f"Cache(Path({str(path)!r}))")
    assert set(Cache(path).get_many([str(number) for number in reported]).values()) == reported


def _overwrite(path: Path, start: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(data)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: path.write_bytes(b"<html>" * 1000), id="another file"),
        pytest.param(lambda path: os.truncate(path, path.stat().st_size // 2), id="cut in half"),
        pytest.param(lambda path: os.truncate(path, 50), id="cut in the header"),
        pytest.param(lambda path: _overwrite(path, 0, bytes(100)), id="header zeroed"),
        pytest.param(lambda path: _overwrite(path, 4096, b"\xff" * 4096), id="a page overwritten"),
    ],
)
def test_a_damaged_file_is_moved_away_and_a_new_one_started(path: Path, damage, caplog: pytest.LogCaptureFixture) -> None:
    cache = Cache(path)
    for number in range(200):
        cache.put(str(number), "x" * 100)
    cache.close()
    for number in (1, 2):
        damage(path)
        before = path.read_bytes()
        cache = Cache(path)
        assert cache.get_many(["0"]) == {}
        cache.put("0", "new")
        assert cache.get_many(["0"]) == {"0": "new"}
        for filler in range(200):
            cache.put(str(filler), "x" * 100)
        cache.close()
        assert path.with_name(f"{path.name}.damaged-{number}").read_bytes() == before
    assert caplog.text.count("moved to") == 2
    assert str(path) in caplog.text


def test_the_log_of_a_damaged_file_is_moved_away_with_it(path: Path) -> None:
    first = Cache(path)
    for number in range(200):
        first.put(str(number), "x" * 100)
    first.close()
    holder = Cache(path)
    holder.put("200", "in the log, which stays as long as somebody has the file open")
    _overwrite(path, 4096, b"\xff" * 4096)

    cache = Cache(path)
    assert cache.get_many(["0", "200"]) == {}
    cache.put("0", "new")
    cache.close()
    assert Cache(path).get_many(["0", "200"]) == {"0": "new"}
    assert path.with_name("cache.sqlite.damaged-1-wal").stat().st_size > 0


def test_damage_that_comes_while_the_file_is_open_is_mended_too(path: Path) -> None:
    cache = Cache(path)
    for number in range(200):
        cache.put(str(number), "x" * 100)
    other = sqlite3.connect(path)
    other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    other.close()
    _overwrite(path, 4096, b"\xff" * (path.stat().st_size - 4096))
    other = sqlite3.connect(path)  # a write by another process makes the first one read its pages again
    other.execute("PRAGMA user_version=7")
    other.close()
    assert cache.get_many(["7"]) == {}
    cache.put("7", "new")
    assert cache.get_many(["7"]) == {"7": "new"}


def test_a_flipped_digit_in_a_value_is_a_miss_not_a_wrong_answer(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = Cache(path)
    cache.put("k", {"probability": 0.875})
    cache.close()
    content = path.read_bytes()
    _overwrite(path, content.index(b"0.875"), b"0.175")
    cache = Cache(path)
    assert cache.get_many(["k"]) == {}
    assert "damaged value" in caplog.text
    cache.put("k", {"probability": 0.875})
    assert cache.get_many(["k"]) == {"k": {"probability": 0.875}}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param("ALTER TABLE entries ADD COLUMN more TEXT", id="a column more"),
        pytest.param("ALTER TABLE entries RENAME COLUMN value TO content", id="a column renamed"),
        pytest.param("PRAGMA user_version=7", id="a later version"),
        pytest.param("DROP TABLE entries; CREATE TABLE entries (key, value)", id="another table"),
    ],
)
def test_a_file_of_another_form_is_moved_away(path: Path, change: str) -> None:
    cache = Cache(path)
    cache.put("k", 1)
    cache.close()
    other = sqlite3.connect(path)
    other.executescript(change)
    other.close()
    cache = Cache(path)
    assert cache.get_many(["k"]) == {}
    cache.put("k", 2)
    assert cache.get_many(["k"]) == {"k": 2}
    assert path.with_name(f"{path.name}.damaged-1").exists()


@pytest.mark.parametrize("value", ["7", "NULL", "x'00ff'", "'no json'", "1.5"])
def test_a_value_of_another_type_is_a_miss(path: Path, value: str) -> None:
    cache = Cache(path)
    cache.put("k", {"probability": 0.5})
    cache.put("other", 1)
    cache.close()
    other = sqlite3.connect(path)
    other.executescript("ALTER TABLE entries RENAME TO strict; CREATE TABLE entries (key, value, crc32);")
    other.execute("INSERT INTO entries SELECT key, value, crc32 FROM strict")
    other.execute(f"UPDATE entries SET value = {value} WHERE key = 'k'")
    other.commit()
    other.close()
    assert Cache(path).get_many(["k", "other"]) == {"other": 1}


def test_the_entry_of_another_key_is_never_given(path: Path) -> None:
    cache = Cache(path)
    cache.put(cache_key(model="m", text="a b"), "first")
    assert cache.get_many([cache_key(model="m", text="a  b"), cache_key(model="m a", text="b")]) == {}


@pytest.mark.process
def test_a_log_that_is_gone_loses_what_was_in_it_and_nothing_else(path: Path) -> None:
    first = Cache(path)
    first.put("old", 1)
    first.close()
    code = f"""
import os, signal
from pathlib import Path
from aligndistill.store.cache import Cache
Cache(Path({str(path)!r})).put("new", 2)
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    wal = path.with_name("cache.sqlite-wal")
    assert wal.stat().st_size > 0
    wal.unlink()
    cache = Cache(path)
    assert cache.get_many(["old", "new"]) == {"old": 1}
    cache.put("new", 3)
    assert Cache(path).get_many(["new"]) == {"new": 3}


def test_a_file_that_stays_locked_is_a_user_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.2)
    cache = Cache(path)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(DataError, match="locked"):
        cache.put("k", 1)
    holder.execute("COMMIT")
    cache.put("k", 1)
    assert cache.get_many(["k"]) == {"k": 1}
    assert not list(path.parent.glob("*.damaged-*"))


def test_on_a_network_file_system_the_cache_is_append_only_files(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_systems, "NETWORK_FILE_SYSTEMS", {file_systems.file_system(path)})
    cache = Cache(path)
    cache.put("k", {"a": 1})
    assert Cache(path).get_many(["k", "absent"]) == {"k": {"a": 1}}
    assert not path.exists()
    assert len(list(path.with_suffix(".segments").glob("*.jsonl"))) == 1


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda path: path.mkdir(parents=True), id="path is a folder"),
        pytest.param(lambda path: path.parent.write_text("a file"), id="folder is a file"),
    ],
)
def test_a_path_that_cannot_be_used_is_a_user_error_that_names_it(path: Path, spoil) -> None:
    spoil(path)
    with pytest.raises(DataError, match=r"cache\.sqlite cannot be used"):
        Cache(path)
