import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aligndistill.commands.completion import run_folders, run_models, stage_names
from tests.e2e.command import ENVIRONMENT, Ended
from tests.imports import HEAVY, TOLD, imported


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs, and a folder that is none."""
    monkeypatch.chdir(tmp_path)
    for name in ("quick", "slow"):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text("name: x")
        (folder / "plan.json").write_text(
            json.dumps({"stages": [{"name": "prompts"}, {"name": "rankings"}, {"name": f"student-{name}"}]})
        )
        stages = {"prompts": "a", "start": "b", f"student-{name}": "c", "reward_model": "d"}
        (folder / "artifacts.json").write_text(json.dumps(stages))
    (tmp_path / "runs/store").mkdir()
    (tmp_path / "runs/.hidden").mkdir()
    return tmp_path


def test_folders_of_runs() -> None:
    assert run_folders("r") == ["runs/"]
    assert run_folders("runs/") == ["runs/quick", "runs/slow", "runs/store/"]
    assert run_folders("runs/q") == ["runs/quick"]
    assert run_folders("nothing/here") == []


def test_models_of_a_run() -> None:
    assert run_models("runs/q") == ["runs/quick", "runs/quick:quick", "runs/quick:start"]
    assert run_models("runs/quick:s") == ["runs/quick:start"]
    assert run_models("runs/none:s") == []


def test_stages_of_all_runs_and_groups_of_them() -> None:
    assert stage_names("") == ["students", "answers", "prompts", "rankings", "student-quick", "student-slow"]
    assert stage_names("ra") == ["rankings"]


def test_a_file_that_is_no_plan_stops_nothing(here: Path) -> None:
    (here / "runs/quick/plan.json").write_text("[")
    (here / "runs/slow/artifacts.json").write_text("[]")
    assert stage_names("student") == ["students", "student-slow"]
    assert run_models("runs/slow:") == []


@pytest.mark.process
def test_completing_imports_no_library_that_computes(here: Path) -> None:
    """As bash asks, through a script of the name that users type."""
    (here / "aligndistill").write_text("from aligndistill.cli.app import main\nmain()\n")
    asked = {"_ALIGNDISTILL_COMPLETE": "complete_bash", "COMP_WORDS": "aligndistill chat runs/q", "COMP_CWORD": "2"}
    ended = subprocess.run(
        [sys.executable, "aligndistill"],
        cwd=here,
        env={**os.environ, **ENVIRONMENT, **TOLD, **asked},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.stdout.split() == ["runs/quick", "runs/quick:quick", "runs/quick:start"]
    found = imported(Ended(ended.returncode, ended.stdout, ended.stderr))
    assert "typer" in found
    assert not found & HEAVY
