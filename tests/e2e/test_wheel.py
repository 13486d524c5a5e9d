"""The built wheel in an environment of its own: `init --quickstart` and `run quickstart.yaml` in an empty folder.

The environment sees the libraries of this one, and nothing of the repository.
"""

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.e2e.command import REPOSITORY

SHORT = (
    *("prompts.source.limit=60", "sft.max_steps=5", "teacher.sft.max_steps=5", "evaluation.samples_per_prompt=1"),
    *(
        "sft.demonstrations.limit=200",
        "teacher.sft.demonstrations.limit=200",
        "candidates.per_prompt=2",
        "candidates.max_new_tokens=8",
    ),
    *("students.rrhf=null", "students.pro=null", "students.ppo=null", "students.ppo_teacher=null", "students.dpo.max_steps=2"),
    *("students.best_of_n.max_steps=1", "reward_model=null", "audit.stop.canaries=null"),
)
"""The whole pipeline with next to nothing in it."""


def done(*command: str | Path, folder: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    ended = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**environment, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONSAFEPATH": "1", "PIP_NO_INDEX": "1"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling", reason="hatchling is not installed, which builds the wheel: make install")
    folder = tmp_path_factory.mktemp("wheel")
    done(
        *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, REPOSITORY),
        folder=folder,
    )
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_has_the_package_its_licence_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert len(tops) == 2
    assert "aligndistill" in tops
    assert {"aligndistill/py.typed", "aligndistill/shipped/configs/quickstart.yaml"} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    metadata = next(zipfile.ZipFile(wheel).read(name).decode() for name in names if name.endswith(".dist-info/METADATA"))
    assert {"Provides-Extra: dev", "Provides-Extra: quantised", "License-Expression: Apache-2.0"} <= set(metadata.splitlines())


def test_the_installed_quickstart_runs_in_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    environment, folder = tmp_path / "environment", tmp_path / "empty"
    folder.mkdir()
    done(sys.executable, "-m", "venv", "--without-pip", environment, folder=folder)
    python, program = environment / "bin" / "python", environment / "bin" / "aligndistill"
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")  # its own .pth files are not read
    done(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel, folder=folder)
    where = done(python, "-c", "import aligndistill; print(aligndistill.__file__)", folder=folder)
    assert Path(where.strip()).is_relative_to(environment)

    done(program, "init", "--quickstart", folder=folder)
    printed = done(program, "run", "quickstart.yaml", *SHORT, folder=folder)
    assert "runs/quickstart/report.html" in printed
    report = json.loads((folder / "runs/quickstart/report.json").read_text())
    assert set(report["students"]) == {"best_of_n", "dpo"}
    assert report["students"]["dpo"]["truth"]["n"] > 0
