"""Runs compared: figures by hand from the records of generated runs."""

import json
from collections import defaultdict
from pathlib import Path
from statistics import fmean

import pytest
from typer.testing import CliRunner

from aligndistill.cli import app as cli
from aligndistill.commands.compare.compare import compare
from aligndistill.commands.compare.differences import changed, difference, differing
from aligndistill.errors import ConfigError, DataError
from aligndistill.evaluation.intervals import paired_difference
from tests.commands.view.fake_run import FakeRun, write_run


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def two(tmp_path: Path) -> tuple[FakeRun, FakeRun]:
    """Runs with the same prompts and other answers; `dpo` has another beta in the second."""
    one, other = write_run(tmp_path, "one", prompts=24), write_run(tmp_path, "two", prompts=24)
    write_run(tmp_path / "more", "two", prompts=24, text=lambda field, default: default + "!" * (field == "answer"))
    evaluation = next((tmp_path / "more/runs/store").glob("evaluation-*"))
    moved = tmp_path / "runs/store/evaluation-1111111111111111"
    evaluation.rename(moved)
    dpo = next((tmp_path / "more/runs/store").glob("answers-dpo-*"))
    dpo.rename(tmp_path / "runs/store/answers-dpo-2222222222222222")
    for name in ("artifacts.json", "plan.json"):
        path = other.folder / name
        text = path.read_text().replace(f"evaluation-{0:016x}", moved.name)
        path.write_text(text.replace(f"answers-dpo-{0:016x}", "answers-dpo-2222222222222222"))
    lines = [json.loads(line) for line in (moved / "scored.jsonl").read_text().splitlines()]
    for number, line in enumerate(lines):
        line["truth"] = (number % 3) / 2
    (moved / "scored.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = json.loads((other.folder / "config.yaml").read_text())
    config["students"]["dpo"]["objective"]["beta"] = 0.5
    del config["students"]["ppo"]
    (other.folder / "config.yaml").write_text(json.dumps(config))
    return one, other


def truth_of(folder: Path, model: str) -> dict[str, float]:
    """Read from the records themselves."""
    found = defaultdict(list)
    for line in (folder / "scored.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["author"] == model:
            found[row["prompt_id"]].append(row["truth"])
    return {prompt: fmean(values) for prompt, values in found.items()}


def evaluation(run: FakeRun) -> Path:
    return run.folder.parents[1] / json.loads((run.folder / "artifacts.json").read_text())["evaluation"]


def test_paired_differences_by_hand() -> None:
    first, second = {"a": 0.5, "b": 1.0, "d": 0.0}, {"a": 1.0, "b": 0.75, "c": 1.0, "e": 1.0}
    found = paired_difference(first, second)
    assert found is not None
    assert (found.mean, found.n) == (0.125, 2)  # (0.5 - 0.25) / 2
    assert (found.low, found.high) == (-0.25, 0.5)  # both draws of one prompt
    assert paired_difference(first, {"x": 1.0}) is None


def test_prompts_without_a_value_are_not_compared() -> None:
    first = {"a": {"truth": 0.5}, "b": {"truth": None}, "c": {"truth": 0.25}}
    second = {"a": {"truth": 1.0}, "b": {"truth": 1.0}, "c": {"truth": 0.0}, "d": {"truth": 1.0}}
    found = difference(first, second, "truth")
    assert found is not None
    assert (found.mean, found.n) == (0.125, 2)
    assert changed(first, second, "truth") == [("a", 0.5, 1.0), ("c", 0.25, 0.0)]


def test_differences_are_paired_over_the_records(two: tuple[FakeRun, FakeRun]) -> None:
    one, other = two
    found = compare([one.folder, other.folder])
    before, after = (truth_of(evaluation(run), "dpo") for run in two)
    assert before.keys() == after.keys()
    base, compared = found.models["dpo"]["truth"]
    assert base.value == pytest.approx(fmean(before.values()))
    assert compared.value == pytest.approx(fmean(after.values()))
    assert compared.difference is not None
    assert compared.difference.mean == pytest.approx(fmean(after[prompt] - before[prompt] for prompt in before))
    assert compared.difference.n == len(before) == found.shared[1]
    assert found.runs == ("one@000000", "two@111111")
    assert found.models["ppo"]["truth"][1].why == "same answers"  # the same artifact of answers


def test_settings_that_differ_and_sections_that_are_missing(two: tuple[FakeRun, FakeRun]) -> None:
    found = compare([run.folder for run in two])
    assert found.settings == {"students.dpo.objective.beta": ["0.1", "0.5"], "students.ppo": ["set (ppo)", "not set"]}


def test_null_an_empty_list_and_no_key_are_the_same_setting() -> None:
    """An earlier version does not write the keys of a later one."""
    earlier = {"start": {"model": "a"}, "prompts": {"limit": 3}, "seeds": None}
    later = {"start": {"model": "a", "run": None}, "prompts": {"limit": None, "elicit": []}, "audit": {"second": 0}}
    assert list(differing([earlier, later])) == [("prompts.limit", ["3", "not set"]), ("audit", ["not set", "set"])]


def test_the_prompts_that_fell_most_with_both_answers(two: tuple[FakeRun, FakeRun]) -> None:
    found = compare([run.folder for run in two], worse=3)
    model, measure = found.worse_of
    assert measure == "truth"
    before, after = (truth_of(evaluation(run), model) for run in two)
    falls = sorted(after[prompt] - before[prompt] for prompt in before)[:3]
    assert [one.after - one.before for one in found.worse] == falls
    for one in found.worse:
        assert (one.before, one.after) == (before[one.prompt], after[one.prompt])
        assert one.answers[1] == one.answers[0] + "!"
        assert one.text.startswith("question ")


def test_a_student_that_wrote_the_same_is_not_the_one_that_fell(two: tuple[FakeRun, FakeRun]) -> None:
    """`ppo` has the same answers in both; `dpo` gains, but loses on one prompt."""
    path = evaluation(two[1]) / "scored.jsonl"
    before = truth_of(evaluation(two[0]), "dpo")
    lost = max(before, key=lambda prompt: before[prompt])
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({**row, "truth": float(row["prompt_id"] != lost)}) + "\n" for row in rows))
    found = compare([run.folder for run in two], worse=5)
    assert found.worse_of == ("dpo", "truth")
    assert [(one.prompt, one.after) for one in found.worse] == [(lost, 0.0)]


def test_another_judge_makes_win_rates_incomparable(two: tuple[FakeRun, FakeRun]) -> None:
    path = two[1].folder / "config.yaml"
    config = json.loads(path.read_text())
    config["judge"]["template"] = config["evaluation"]["judge"]["template"] = "helpful"
    path.write_text(json.dumps(config))
    found = compare([run.folder for run in two])
    assert "The judges differ: win rates of these runs are not comparable." in found.notes
    assert found.models["dpo"]["win"][1].why == "not comparable"
    assert found.models["dpo"]["truth"][1].difference is not None


def test_another_teacher_that_judges_makes_win_rates_incomparable(two: tuple[FakeRun, FakeRun]) -> None:
    path = two[1].folder / "config.yaml"
    path.write_text(path.read_text().replace("some/teacher", "another/teacher"))
    found = compare([run.folder for run in two])
    assert found.notes[0] == "The judges differ: win rates of these runs are not comparable."
    assert found.models["dpo"]["win"][1].why == "not comparable"


def test_who_judged_is_not_known_without_a_config_that_can_be_read(two: tuple[FakeRun, FakeRun]) -> None:
    path = two[1].folder / "config.yaml"
    path.write_text(json.dumps({**json.loads(path.read_text()), "of_another_version": 1}))
    found = compare([run.folder for run in two])
    assert found.notes[0].startswith("This version cannot read the config of two, and so not who judged")
    assert found.models["dpo"]["win"][1].why == "not comparable"
    assert found.models["dpo"]["truth"][1].difference is not None


def test_models_are_ordered_by_their_gain(two: tuple[FakeRun, FakeRun]) -> None:
    found = compare([run.folder for run in two], sort="truth")
    assert next(iter(found.models)) == "dpo"  # the others have the same answers
    with pytest.raises(ConfigError, match=r"no such measure\. Measured: truth, win, kl, length, reward"):
        compare([run.folder for run in two], sort="speed")


def test_what_is_no_run_is_answered_with_the_runs_there_are(two: tuple[FakeRun, FakeRun]) -> None:
    runs = two[0].folder.parent
    with pytest.raises(DataError, match=r"runs is not a run's folder. Runs in .*runs/(one|two), .*runs/(one|two)\."):
        compare([runs])
    with pytest.raises(DataError, match="There are no runs in"):
        compare([runs / "store" / "nothing"])
    with pytest.raises(ConfigError, match=r"two runs or more.*Runs beside it: .*runs/two\."):
        compare([two[0].folder])


def test_output_for_people_documents_and_programs(two: tuple[FakeRun, FakeRun]) -> None:
    paths = [str(run.folder) for run in two]
    plain = CliRunner().invoke(cli.app, ["compare", *paths, "--worse", "1"])
    assert plain.exit_code == 0, plain.output
    assert "differ: students.dpo.objective.beta 0.1 -> 0.5" in plain.output
    assert "fell most on these prompts" in plain.output
    written = CliRunner().invoke(cli.app, ["compare", *paths, "--md"]).output
    (row,) = [line for line in written.splitlines() if line.startswith("| dpo ")]
    found = json.loads(CliRunner().invoke(cli.app, ["compare", *paths, "--json"]).output)
    assert (found["schema"], found["command"]) == (1, "compare")
    truth = found["models"]["dpo"]["truth"][1]
    assert f"{truth['difference']['mean']:+.2f} [{truth['difference']['low']:+.2f}, {truth['difference']['high']:+.2f}]" in row
    assert found["models"]["dpo"]["truth"][0]["difference"] is None
