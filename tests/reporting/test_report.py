import json

import pytest

from aligndistill.errors import DataError
from aligndistill.reporting.report import Report, StudentMetrics, best_student, read_report, write_report
from tests.reporting.fake_run import full_report, mean, student


def test_keys_are_the_contract(tmp_path):
    write_report(tmp_path / "report.json", full_report())
    written = json.loads((tmp_path / "report.json").read_text())
    assert written.keys() >= {"run", "seed", "start", "teacher", "judge", "reward_model", "students"}
    assert written["start"].keys() >= {"truth", "length_tokens"}
    assert written["teacher"].keys() >= {"truth"}
    assert written["judge"].keys() >= {"kind", "calls", "unparsed"}
    assert written["reward_model"].keys() >= {"accuracy", "longer_wins", "ece"}
    assert list(written["students"]) == ["dpo", "pro"]
    student_keys = {"objective", "model", "truth", "win_rate", "kl_nats", "length_tokens", "train_seconds"}
    assert written["students"]["pro"].keys() >= student_keys
    assert written["students"]["pro"]["truth"] == {"mean": 0.68, "low": 0.63, "high": pytest.approx(0.73), "n": 96}


def test_what_was_not_run_is_null_and_not_absent(tmp_path):
    write_report(tmp_path / "report.json", Report(run="r", seed=0, students={"s": StudentMetrics(objective="pro", model="m")}))
    written = json.loads((tmp_path / "report.json").read_text())
    assert [written[key] for key in ("teacher", "judge", "reward_model")] == [None, None, None]
    assert written["start"]["truth"] is None
    assert written["students"]["s"]["win_rate"] is None
    assert written["students"]["s"]["train_seconds"] is None


def test_round_trip(tmp_path):
    write_report(tmp_path / "report.json", full_report())
    assert read_report(tmp_path / "report.json") == full_report()


@pytest.mark.parametrize("content", ["", "{", '{"run": "r"}', '{"run": "r", "seed": "x"}'])
def test_a_file_that_is_no_report(tmp_path, content):
    path = tmp_path / "report.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"report\.json is not a report"):
        read_report(path)


def test_no_file(tmp_path):
    with pytest.raises(DataError, match="there is no report at"):
        read_report(tmp_path / "report.json")


def test_best_student_is_by_truth_where_all_have_one_else_by_win_rate():
    high_truth, high_rate = student(truth=0.7, win_rate=0.6), student(truth=0.6, win_rate=0.7)
    assert best_student({"a": high_truth, "b": high_rate}) == "a"
    assert best_student({"a": high_truth, "b": high_rate.model_copy(update={"truth": None})}) == "b"
    # The win rate at equal length counts before the plain one, where all have it.
    short = high_truth.model_copy(update={"truth": None, "win_rate_lc": mean(0.6)})
    long = high_rate.model_copy(update={"truth": None, "win_rate_lc": mean(0.55)})
    assert best_student({"a": short, "b": long}) == "a"
    assert best_student({"a": short, "b": long.model_copy(update={"win_rate_lc": None})}) == "b"
    unmeasured = StudentMetrics(objective="pro", model="m", truth=mean(0.5))
    assert best_student({"a": high_truth.model_copy(update={"truth": None}), "b": unmeasured}) is None
    assert best_student({}) is None
