"""What the folder of a run adds to its report, and when it is written again."""

import json
import os
import struct
from pathlib import Path

import pytest

from aligndistill.config.run import RunConfig
from aligndistill.reporting.inserts import with_inserts
from aligndistill.reporting.provenance import DataOrigin, ModelOrigin, Origins
from aligndistill.reporting.report import Report, read_report, write_report
from aligndistill.runs.report_files import link_students, write_report_files, write_verdicts
from aligndistill.stages.model_sizes import parameters_in
from tests.commands.view.fake_run import write_run


def finished(store: Path, name: str, seconds: float, **metrics: object) -> Path:
    folder = store / f"{name}-{0:016x}"
    folder.mkdir(parents=True)
    values = {"stage": name, "fingerprint": "0" * 16, "files": {}, "wall_seconds": seconds, "metrics": metrics}
    (folder / "manifest.json").write_text(json.dumps({"counts": {}, "dropped": {}, "versions": {}, **values}))
    os.utime(folder / "manifest.json", (1_700_000_000, 1_700_000_000))  # 2023-11-14 22:13:20 UTC
    return folder


def write_model(folder: Path) -> None:
    """Two tensors of 6 and 4 numbers, as safetensors begin."""
    folder.mkdir(parents=True)
    header = {
        "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "F32", "shape": [4], "data_offsets": [24, 40]},
    }
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(40))


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    write_model(tmp_path / "start")
    values = {"name": "r", "rankings": {"source": {"path": "pairs.jsonl"}}, "start": {"model": str(tmp_path / "start")}}
    return RunConfig.model_validate({**values, "students": {"dpo": {"objective": {"kind": "dpo"}}}})


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    made = {
        "rankings": finished(tmp_path / "store", "rankings", 2.5),
        "student-dpo": finished(tmp_path / "store", "student-dpo", 60.0),
        "report": finished(tmp_path / "store", "report", 1.5, machine="a Turing machine, 1 CPU core"),
    }
    (made["student-dpo"] / "model").mkdir()
    origins = Origins(
        models=(ModelOrigin(name="start", model="start"), ModelOrigin(name="teacher", model="big", server="host:1")),
        data=(DataOrigin(key="rankings.source", data="pairs.jsonl", hash="0123456789abcdef"),),
    )
    write_report(made["report"] / "report.json", Report(run="r", seed=0, origins=origins))
    (made["report"] / "report.html").write_text("<h1>r</h1><!-- about --><main></main>")
    folder = tmp_path / "runs/r"
    folder.mkdir(parents=True)
    events = [{"event": "begin", "note": "aligndistill run mine.yaml"}, {"event": "begin", "note": "aligndistill run other.yaml"}]
    (folder / "events.jsonl").write_text("not JSON\n" + "".join(json.dumps(one) + "\n" for one in events))
    spent = [{"model": "m", "stage": "rankings", "requests": 3, "tokens": 40, "usd": 0.5, "seconds": 1.0}] * 2
    (folder / "spent.jsonl").write_text("".join(json.dumps(one) + "\n" for one in spent))
    return made


def test_how_a_run_was_made(tmp_path: Path, config: RunConfig, folders: dict[str, Path]) -> None:
    folder = tmp_path / "runs/r"
    write_report_files(config, folder, folders)
    about = read_report(folder / "report.json").about
    assert about is not None
    assert (about.command, about.machine) == ("aligndistill run mine.yaml", "a Turing machine, 1 CPU core")
    assert [(one.name, one.model, one.parameters) for one in about.models] == [
        ("start", "start", 10),
        ("teacher", "big on host:1", None),
    ]
    assert [(one.stage, one.seconds, one.requests, one.tokens, one.usd) for one in about.stages] == [
        ("rankings", 2.5, 6, 80, 1.0),
        ("student-dpo", 60.0, 0, 0, 0.0),
        ("report", 1.5, 0, 0, 0.0),
    ]
    assert (about.seconds, about.requests, about.tokens, about.usd) == (64.0, 6, 80, 1.0)
    assert about.finished == "2023-11-14T22:13:20+00:00"
    page = (folder / "report.html").read_text()
    for shown in ("pairs.jsonl at 01234567", "start, 10 parameters", "6 requests, 80 tokens, 1.00 USD", "64 s", "a Turing machine"):
        assert shown in page, shown
    assert f"aligndistill view {folder}" in page
    assert "<!--" not in page
    assert "style=" not in page


def test_written_again_only_where_something_changed(tmp_path: Path, config: RunConfig, folders: dict[str, Path]) -> None:
    folder = tmp_path / "runs/r"
    write_report_files(config, folder, folders)
    before = (folder / "report.json").read_bytes()
    (folder / "report.html").write_text("unchanged")
    write_report_files(config, folder, folders)
    assert (folder / "report.html").read_text() == "unchanged"
    (folder / "votes").mkdir()
    (folder / "votes/ann.jsonl").write_text("{}\n")
    write_report_files(config, folder, folders)
    assert "<h1>r</h1>" in (folder / "report.html").read_text()
    assert (folder / "report.json").read_bytes() != before
    (folders["report"] / "report.html").write_text("<h1>made again</h1>")
    write_report_files(config, folder, folders)
    assert "made again" not in (folder / "report.html").read_text()  # not as long as its manifest says that it is the same
    manifest = folders["report"] / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"wall_seconds": 1.5', '"wall_seconds": 1.75'))
    write_report_files(config, folder, folders)
    assert "made again" in (folder / "report.html").read_text()
    (folder / "report.html").unlink()
    write_report_files(config, folder, folders)
    assert (folder / "report.html").is_file()


def test_links_to_the_students_are_relative_and_follow_the_run(tmp_path: Path, folders: dict[str, Path]) -> None:
    folder = tmp_path / "runs/r"
    link_students(folder, folders)
    link_students(folder, folders)
    link = folder / "students/dpo"
    assert os.readlink(link) == f"../../../store/{folders['student-dpo'].name}/model"
    assert link.resolve() == (folders["student-dpo"] / "model").resolve()
    other = finished(tmp_path / "store", "student-pro", 1.0)
    (other / "model").mkdir()
    (folder / "students/mine").write_text("a file of the user's stays")
    link_students(folder, {"student-dpo": other})
    assert link.resolve() == (other / "model").resolve()
    link_students(folder, {})
    assert [one.name for one in (folder / "students").iterdir()] == ["mine"]


def test_a_copied_folder_in_the_place_of_a_link_is_named(
    tmp_path: Path, folders: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs/r/students/dpo").mkdir(parents=True)
    link_students(tmp_path / "runs/r", folders)
    captured = capsys.readouterr()
    assert "students/dpo is not a link and is left as it is; the student's model is in" in captured.out + captured.err


def test_texts_cannot_hold_the_places_that_are_filled(tmp_path: Path) -> None:
    report = Report(run="r", seed=0)
    assert with_inserts("&lt;!-- about --&gt; <!-- about -->", report, "runs/r") == "&lt;!-- about --&gt; <!-- about -->"


def test_pages_of_labelling_and_evaluation_are_kept_until_the_verdicts_change(tmp_path: Path) -> None:
    made = write_run(tmp_path, prompts=40)
    folders = {name: Path(path) for name, path in json.loads((made.folder / "artifacts.json").read_text()).items()}
    folders = {name: path if path.is_absolute() else tmp_path / path for name, path in folders.items()}
    write_verdicts("fake", made.folder, folders)
    page = (made.folder / "verdicts.html").read_text()
    assert "Verdicts of fake" in page
    for title in ("Known-bad answers that", "The second judge prefers another answer", "Answers to held-out prompts"):
        assert title in page
    stamp = (made.folder / "verdicts.html").stat().st_mtime_ns
    write_verdicts("fake", made.folder, folders)
    assert (made.folder / "verdicts.html").stat().st_mtime_ns == stamp
    write_verdicts("renamed", made.folder, folders)
    assert "Verdicts of renamed" in (made.folder / "verdicts.html").read_text()


def test_nothing_judged_makes_no_page(tmp_path: Path, folders: dict[str, Path]) -> None:
    write_verdicts("r", tmp_path / "runs/r", folders)
    assert not (tmp_path / "runs/r/verdicts.html").exists()


def test_a_folder_without_weights_has_no_size(tmp_path: Path) -> None:
    assert parameters_in(tmp_path) is None
    assert parameters_in(tmp_path / "missing") is None
