"""Who is who, by what each launcher puts into the environment."""

import os
import time
from pathlib import Path

import pytest

from aligndistill.training.distributed import STALE_BUILD_SECONDS, break_stale_build_locks, local_ranks, our_share


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


def test_only_locks_of_builds_that_must_have_ended_are_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    old, new = tmp_path / "cpu_adam" / "lock", tmp_path / "other" / "lock"
    for lock in (old, new):
        lock.parent.mkdir()
        lock.touch()
    before = time.time() - STALE_BUILD_SECONDS - 1
    os.utime(old, (before, before))
    break_stale_build_locks()
    assert not old.exists()
    assert new.exists()
