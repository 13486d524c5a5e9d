import os
import time
from pathlib import Path

import pytest

from aligndistill.doctor import examine


def test_the_lock_of_a_killed_build_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    old, new = tmp_path / "cpu_adam" / "lock", tmp_path / "other" / "lock"
    for lock, age in ((old, 720), (new, 0)):
        lock.parent.mkdir()
        lock.touch()
        os.utime(lock, (time.time() - age,) * 2)
    lines: list[str] = []
    examine(None, lines.append)
    told = [line for line in lines if "lock" in line]
    assert len(told) == 1
    assert f"a build was killed 12 min ago and left {old}" in told[0]
