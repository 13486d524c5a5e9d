from dataclasses import dataclass
from pathlib import Path

import pytest

from aligndistill.commands import last_lines as module
from aligndistill.commands.last_lines import last_lines
from aligndistill.reporting.report import Check, Report
from aligndistill.runs.files import SPENT
from aligndistill.runs.results import TrainedStudent
from tests.reporting.fake_run import full_report

CHECK = Check(kind="worse_than_start", student="pro", text="pro is worse than the start on 15% of the prompts.")


@dataclass
class FakeRun:
    """What `last_lines` reads of a run."""

    folder: Path
    report: Report
    stages: dict[str, Path]
    students: dict[str, TrainedStudent]
    reward_model: Path | None = None


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "read_manifest", lambda folder: type("Manifest", (), {"wall_seconds": 30.0}))
    folder = Path("runs/quick")
    folder.mkdir(parents=True)
    stages = {"one": Path("store/one"), "two": Path("store/two"), "again": Path("store/two")}
    students = {name: TrainedStudent(name, "x", tmp_path / f"store/student-{name}/model", None) for name in ("dpo", "pro")}
    return FakeRun(folder, full_report(), stages, students)


def lines(run: FakeRun) -> dict[str, str]:
    return {line[:8].strip(): line[9:] for line in last_lines(run, 2.0)}  # type: ignore[arg-type]


def test_six_lines_say_what_came_out_and_what_is_next(run: FakeRun) -> None:
    run.report = run.report.model_copy(update={"warnings": ("The judge prefers long answers.", "KL is high."), "checks": (CHECK,)})
    (run.folder / SPENT).write_text('{"requests": 2, "tokens": 1500, "usd": 0.5}\n{"requests": 1, "tokens": 500, "usd": 0.25}\n')
    found = lines(run)
    assert list(found) == ["result", "cost", "checks", "student", "load", "next"]
    assert found["result"].startswith("Leading student of 2: pro. ")
    assert found["cost"] == "3 stages, 60 s (this command: 2.0 s); 3 requests, 2,000 tokens, 0.75 USD"  # a shared stage once
    assert found["checks"] == "3 to look at: The judge prefers long answers. And 2 more: runs/quick/report.html"
    assert found["student"] == "pro: store/student-pro/model"
    assert found["load"] == "model, tokenizer = aligndistill.open_run('runs/quick').students['pro'].load()"
    assert found["next"] == "aligndistill view runs/quick"


def test_a_server_without_a_price_is_not_called_free(run: FakeRun) -> None:
    (run.folder / SPENT).write_text('{"requests": 2, "tokens": 1500, "usd": 0.0}\n')
    assert lines(run)["cost"].endswith("; 2 requests, 1,500 tokens")


def test_a_student_has_its_link_where_there_is_one(run: FakeRun) -> None:
    (run.folder / "students" / "pro").mkdir(parents=True)
    assert lines(run)["student"] == "pro: runs/quick/students/pro"


def test_long_warnings_end_at_a_word(run: FakeRun) -> None:
    run.report = run.report.model_copy(update={"warnings": ("much " * 100,), "checks": ()})
    checks = lines(run)["checks"]
    assert checks.startswith("1 to look at: much much")
    assert "much ... All figures: runs/quick/report.html" in checks.replace("....", "...")


def test_a_run_of_a_reward_model_alone_and_one_of_nothing(run: FakeRun) -> None:
    run.report = Report(run="quick", seed=0)
    run.students = {}
    run.reward_model = run.folder.absolute() / "reward/model"
    assert lines(run)["load"] == "AutoModelForSequenceClassification.from_pretrained('runs/quick/reward/model')"
    run.reward_model = None
    assert lines(run)["model"] == "nothing was trained"
    assert lines(run)["checks"] == "nothing to look at first; all figures: runs/quick/report.html"
