import fcntl
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import counting_judge
from tests.e2e.command import Ended, ForkServer
from tests.e2e.small_run import small_config, write_config, write_data


@dataclass(frozen=True)
class FinishedRun:
    """The small run, finished: its working directory, and how the command ended."""

    folder: Path
    ended: Ended

    @property
    def store(self) -> Path:
        return self.folder / "runs" / "store"

    def made(self, stage: str) -> Path:
        """The one folder of a stage."""
        (folder,) = self.store.glob(f"{stage}-*")
        return folder


@pytest.fixture(scope="session")
def small_run(forked: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """`aligndistill run small.yaml`, once for all of xdist's workers. Tests copy it and never change it."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "small"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ended = folder / "ended.json"
        if not ended.exists():
            write_data(folder)
            write_config(folder / "small.yaml", small_config())
            ended.write_text(json.dumps(asdict(forked.run(folder, "run", "small.yaml"))))
    return FinishedRun(folder, Ended(**json.loads(ended.read_text())))


@pytest.fixture
def copied_run(small_run: FinishedRun, tmp_path: Path) -> FinishedRun:
    """A copy of the finished run to continue from. Names of artifacts do not depend on their place."""
    assert small_run.ended.code == 0, small_run.ended.errors
    shutil.copytree(small_run.folder, tmp_path / "small")
    return FinishedRun(tmp_path / "small", small_run.ended)


@pytest.fixture
def folder(small_run: FinishedRun, tmp_path: Path) -> Path:
    """A working directory with data, the trained start (`start/`), and a judge that counts (`counting_judge.py`)."""
    assert small_run.ended.code == 0, small_run.ended.errors
    write_data(tmp_path)
    shutil.copytree(small_run.made("start") / "model", tmp_path / "start")
    shutil.copy(counting_judge.__file__, tmp_path)
    return tmp_path


@pytest.fixture
def config() -> dict[str, Any]:
    """A config for `folder` that begins from the trained start, and has a function for a judge."""
    whole = small_config()
    return {
        "name": "run",
        "seed": 5,
        "prompts": whole["prompts"],
        "start": {"model": "./start"},
        "candidates": whole["candidates"],
        "judge": {"kind": "function", "function": "counting_judge:grade"},
        "students": {"pro": whole["students"]["pro"]},
        "runtime": whole["runtime"],
    }
