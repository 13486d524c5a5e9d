import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from aligndistill.errors import DataError
from aligndistill.store.append_cache import AppendCache
from tests.store.killing import put_until_killed


def test_what_one_writes_another_that_is_open_already_sees(tmp_path: Path) -> None:
    one, other = AppendCache(tmp_path), AppendCache(tmp_path)
    one.put("k", {"reply": "\ud800 é", "logprobs": [-0.1, None]})
    assert other.get_many(["k"]) == {"k": {"reply": "\ud800 é", "logprobs": [-0.1, None]}}
    one.put("l", 2)
    other.put("m", 3)
    assert other.get_many(["k", "l", "m", "absent"]).keys() == one.get_many(["k", "l", "m"]).keys() == {"k", "l", "m"}


def _write(folder: Path, worker: int, start: Any) -> None:
    start.wait(20)
    segments = AppendCache(folder)
    for number in range(50):
        segments.put(f"{worker}-{number}", number)


@pytest.mark.process
def test_eight_processes_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    start = context.Barrier(8)
    processes = [context.Process(target=_write, args=(tmp_path, worker, start)) for worker in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert len(AppendCache(tmp_path).get_many([f"{w}-{n}" for w in range(8) for n in range(50)])) == 400


@pytest.mark.process
def test_what_was_put_survives_kill_9(tmp_path: Path) -> None:
    reported = put_until_killed("from aligndistill.store.append_cache import AppendCache", f"AppendCache(Path({str(tmp_path)!r}))")
    assert set(AppendCache(tmp_path).get_many([str(number) for number in reported]).values()) == reported


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data.replace(b"0.875", b"0.175"),
        lambda data: data[: data.index(b"0.875")] + b"\xff\xff" + data[data.index(b"0.875") :],
        lambda data: data.replace(b'"first"', b'"fIrst"'),
        lambda data: b"<html>\n" + data[data.index(b"\n") + 1 :],
        lambda data: b"[1]\n" + data[data.index(b"\n") + 1 :],
        lambda data: b'{"key": 1, "value": 2, "crc32": 3}\n' + data[data.index(b"\n") + 1 :],
    ],
)
def test_a_damaged_line_is_a_miss_and_the_others_are_there(tmp_path: Path, damage, caplog: pytest.LogCaptureFixture) -> None:
    writer = AppendCache(tmp_path)
    writer.put("first", 0.875)
    writer.put("second", 0.25)
    writer.close()
    (file,) = tmp_path.glob("*.jsonl")
    file.write_bytes(damage(file.read_bytes()))
    assert AppendCache(tmp_path).get_many(["first", "second", "fIrst"]) == {"second": 0.25}
    assert "damaged" in caplog.text


def test_a_torn_last_line_is_taken_when_it_is_whole(tmp_path: Path) -> None:
    writer = AppendCache(tmp_path)
    writer.put("k", 1)
    (file,) = tmp_path.glob("*.jsonl")
    whole = file.read_bytes()
    file.write_bytes(whole[:-5])
    reader = AppendCache(tmp_path)
    assert reader.get_many(["k"]) == {}
    file.write_bytes(whole)
    assert reader.get_many(["k"]) == {"k": 1}


def test_a_folder_that_cannot_be_used_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="cannot be used"):
        AppendCache(tmp_path / "file")
