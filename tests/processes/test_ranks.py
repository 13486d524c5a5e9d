"""Who is who, by what each launcher puts into the environment."""

import os
import threading
import time
from pathlib import Path

import pytest

from aligndistill.processes.deepspeed import STALE_BUILD_SECONDS, wait_for_builds
from aligndistill.processes.ranks import local_ranks, our_share


@pytest.fixture(params=["LOCAL_WORLD_SIZE", "LOCAL_SIZE"])  # torchrun's name, DeepSpeed's
def second_of_two_machines(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    for name, value in {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", request.param: "2"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("second_of_two_machines")
def test_processes_of_one_machine_share_its_work_and_no_other_machines() -> None:
    assert local_ranks() == range(2, 4)
    assert our_share("abcde", local_ranks()) == ["b", "d"]
    assert our_share("abcde") == ["d"]


def test_one_process_does_all(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "LOCAL_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert local_ranks() == range(1)
    assert our_share("abc") == ["a", "b", "c"]


def test_a_build_is_waited_for_and_the_lock_of_a_killed_one_is_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    killed, running = tmp_path / "cpu_adam" / "lock", tmp_path / "other" / "lock"
    for lock, age in ((killed, STALE_BUILD_SECONDS - 0.5), (running, 0)):
        lock.parent.mkdir()
        lock.touch()
        os.utime(lock, (time.time() - age,) * 2)
    was_there = list[bool]()

    def finish() -> None:
        was_there.append(running.exists())
        running.unlink(missing_ok=True)

    done = threading.Timer(1.5, finish)
    done.start()
    began = time.monotonic()
    wait_for_builds()
    assert 1 < time.monotonic() - began < 30
    done.join()
    assert was_there == [True]
    assert not killed.exists()
    assert "waiting for other to be compiled" in " ".join(capfd.readouterr().err.split())
