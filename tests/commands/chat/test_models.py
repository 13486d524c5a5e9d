import json
from pathlib import Path

import pytest

from aligndistill.commands.chat.models import choose
from aligndistill.errors import DataError
from aligndistill.reporting.report import Report, StudentMetrics, write_report
from aligndistill.store.run_folder import split_name
from tests.reporting.fake_run import student


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run with models that are no models, by their names."""
    monkeypatch.chdir(tmp_path)
    stages = ("start", "teacher", "model-other", "student-dpo", "student-pro", "reward_model", "rankings")
    folders = {name: tmp_path / "store" / name for name in stages}
    for name, folder in folders.items():
        folder.mkdir(parents=True)
        if name != "rankings":
            (folder / "model.json").write_text("{}")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/artifacts.json").write_text(json.dumps({name: str(path) for name, path in folders.items()}))
    return Path("run")


def report(run: Path, **truth: float) -> None:
    students: dict[str, StudentMetrics] = {name: student(value, 0.5) for name, value in truth.items()}
    write_report(run / "report.json", Report(run="run", seed=0, students=students))


def test_a_model_by_its_name(run: Path) -> None:
    for name, stage in (("dpo", "student-dpo"), ("start", "start"), ("teacher", "teacher"), ("other", "model-other")):
        chosen = choose(f"run:{name}")
        assert (chosen.name, chosen.folder.name, chosen.run) == (name, stage, run)


def test_without_a_name_it_is_the_leading_student(run: Path) -> None:
    report(run, dpo=0.4, pro=0.6)
    assert choose("run").name == "pro"


def test_without_a_report_the_name_must_be_given(run: Path) -> None:
    with pytest.raises(DataError, match=r"say which model of run: run:dpo, run:pro, run:start, run:teacher, run:other"):
        choose("run")


def test_what_does_not_exist_is_answered_with_what_does(run: Path) -> None:
    with pytest.raises(DataError, match=r"run has no model 'dbo' that runs here; did you mean 'dpo'.*It has: dpo, pro, start"):
        choose("run:dbo")
    with pytest.raises(DataError, match="no model 'reward_model'"):
        choose("run:reward_model")
    with pytest.raises(DataError, match=r"elsewhere is not a run's folder. Give RUN or RUN:STUDENT"):
        choose("elsewhere:dpo")


def test_a_run_without_models(run: Path) -> None:
    Path("run/artifacts.json").write_text("{}")
    with pytest.raises(DataError, match="no finished model yet"):
        choose("run:dpo")


def test_a_folder_with_a_colon_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a:b").mkdir()
    assert split_name("a:b") == (Path("a:b"), None)
    assert split_name("a:b:dpo") == (Path("a:b"), "dpo")
    assert split_name("a") == (Path("a"), None)
