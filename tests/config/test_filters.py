"""Filters in a config: what they may say, what `check` says of those that cannot be, and which stages they change."""

import json
from pathlib import Path
from typing import Any

import pytest

from aligndistill.commands.check.check import examine
from aligndistill.config.checks import check
from aligndistill.config.load import load_config
from aligndistill.config.run import RunConfig
from aligndistill.errors import ConfigError
from aligndistill.pipeline import pipeline
from aligndistill.store.stage import Stage
from tests.e2e.small_run import write_config

SERVER = {"kind": "endpoint", "base_url": "http://localhost:1/v1", "name": "m"}


def config(**sections: Any) -> dict[str, Any]:
    return {
        "name": "x",
        "prompts": {"source": {"path": "p.jsonl"}},
        "start": {"model": "some/model"},
        "sft": {"demonstrations": {"path": "d.jsonl"}},
        "teacher": {"model": "some/teacher"},
        "models": {"server": SERVER, "function": {"kind": "function", "function": "a:b"}},
        "judge": {"kind": "likelihood"},
        "students": {"dpo": {"objective": {"kind": "dpo"}}},
        **sections,
    }


def filtered(where: str, filters: dict[str, Any], **more: Any) -> RunConfig:
    whole = config(**more)
    section = whole.setdefault(where, {})
    whole[where] = {**section, "filters": filters}
    return RunConfig.model_validate(whole)


RUBRIC = {"kind": "rubric", "model": "server"}
PAIRWISE = {"kind": "pairwise", "model": "server"}


@pytest.mark.parametrize(
    ("where", "filters", "key", "said"),
    [
        ("rankings", {"length": [1, 2]}, "rankings.filters", "write them as prompts.filters"),
        ("prompts", {"ifd": [0, 1]}, "prompts.filters.ifd", "only demonstrations are answers"),
        ("prompts", {"quality": {"judge": PAIRWISE, "at_least": 1}}, "prompts.filters.quality.judge.kind", "needs a grade"),
        (
            "prompts",
            {"quality": {"judge": {**RUBRIC, "model": "sever"}, "at_least": 1}},
            "prompts.filters.quality.judge.model",
            "did you mean 'server'",
        ),
        (
            "prompts",
            {"perplexity": {"between": [1, 9], "model": "server"}},
            "prompts.filters.perplexity.model",
            "use a local model",
        ),
        (
            "prompts",
            {"perplexity": {"between": [1, 9], "model": "function"}},
            "prompts.filters.perplexity.model",
            "which a function does not give",
        ),
        (
            "prompts",
            {"perplexity": {"between": [1, 9], "model": "techer"}},
            "prompts.filters.perplexity.model",
            "did you mean 'teacher'",
        ),
        ("sft", {"balance": {"by": "file", "at_most": 0.5}}, "sft.filters.balance.by", "use 'language'"),
    ],
)
def test_filters_that_cannot_be_applied(where: str, filters: dict[str, Any], key: str, said: str) -> None:
    (problem,) = check(filtered(where, filters))
    assert ".".join(map(str, problem.path)) == key
    assert said in problem.text


def test_a_start_from_scratch_cannot_choose_its_own_demonstrations() -> None:
    (problem,) = check(filtered("sft", {"ifd": [0.1, 0.9]}, start={"from_scratch": {"vocab_size": 300}}))
    assert "knows nothing before" in problem.text
    assert not list(check(filtered("sft", {"ifd": {"between": [0.1, 0.9], "model": "teacher"}})))


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        ({"length": [9, 2]}, "the fewest units come first"),
        ({"duplicates": 1.5}, "expected a number not greater than 1"),
        ({"language": ["xx"]}, "expected 'ar'"),
        ({"ifd": [2, 1]}, "the lower end is above the upper end"),
        ({"balance": {"by": "language", "at_most": 0}}, "greater than 0"),
        ({"dupes": 0.7}, "unknown key"),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path: Path, filters: dict[str, Any], said: str) -> None:
    write_config(tmp_path / "run.yaml", config(prompts={"source": {"path": "p.jsonl"}, "filters": filters}))
    with pytest.raises(ConfigError, match=r"prompts\.filters") as found:
        load_config(tmp_path / "run.yaml")
    assert said in str(found.value)


def test_paths_with_wildcards_are_the_files_that_they_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b.jsonl", "a.jsonl", "c.txt"):
        (tmp_path / name).write_text("")
    against = ["*.jsonl", {"path": "other.csv", "columns": {"prompt": "question"}}, "missing-*.jsonl"]
    write_config(tmp_path / "run.yaml", config(prompts={"source": {"path": "p.jsonl"}, "filters": {"against": against}}))
    found = load_config(tmp_path / "run.yaml").prompts
    assert found is not None
    assert found.filters is not None
    assert [one.path for one in found.filters.against] == ["a.jsonl", "b.jsonl", "other.csv", "missing-*.jsonl"]


def test_everything_that_a_file_may_say(tmp_path: Path) -> None:
    filters = {
        "length": [4, 150],
        "duplicates": 0.7,
        "against": ["a.jsonl"],
        "language": ["en", "zh"],
        "refusals": True,
        "self_references": True,
        "cut_off": True,
        "quality": {"judge": RUBRIC, "at_least": 6},
        "ifd": [0.2, 0.9],
        "perplexity": {"between": [2, 500], "model": "teacher"},
        "balance": {"by": "language", "at_most": 0.5},
    }
    write_config(tmp_path / "run.yaml", config(sft={"demonstrations": {"path": "d.jsonl"}, "filters": filters}))
    found = load_config(tmp_path / "run.yaml").sft
    assert found is not None
    assert found.filters is not None
    assert found.filters.models == ("server", "start", "teacher")
    assert found.filters.ifd is not None
    assert found.filters.ifd.between == (0.2, 0.9)


def test_check_reads_the_files_of_evaluations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.jsonl").write_text("".join(json.dumps({"prompt": f"Question {n}?"}) + "\n" for n in range(50)))
    (tmp_path / "d.jsonl").write_text(json.dumps({"prompt": "a", "completion": "b"}) + "\n")
    (tmp_path / "good.jsonl").write_text(json.dumps({"prompt": "One item is enough."}) + "\n")
    (tmp_path / "bad.jsonl").write_text(json.dumps({"question": "?"}) + "\n")

    def said(*against: str) -> str:
        return "\n".join(examine(filtered("prompts", {"against": list(against)})).errors)

    assert "against" not in said("good.jsonl")
    assert "prompts.filters.against.0.path" in said("bad.jsonl").replace("[0]", ".0")
    assert "no such file" in said("good.jsonl", "nowhere/x.jsonl")


# -------------------------------------------------------------------------------------------------------------- stages


def stages(whole: RunConfig) -> dict[str, Stage]:
    built = pipeline(whole).stages
    assert len({stage.name for stage in built}) == len(built)
    return {stage.name: stage for stage in built}


def changed(before: RunConfig, after: RunConfig) -> set[str]:
    known = {stage.fingerprint for stage in stages(before).values()}
    return {name for name, stage in stages(after).items() if stage.fingerprint not in known}


def test_filters_of_prompts_are_a_stage_behind_the_one_that_reads() -> None:
    plain = RunConfig.model_validate(config())
    found = changed(plain, filtered("prompts", {"length": [4, 150]}))
    assert {"filters", "candidates", "student-dpo"} < found
    assert not {"prompts", "start", "teacher"} & found
    built = stages(filtered("prompts", {"perplexity": [1, 50], "quality": {"judge": {**RUBRIC, "model": SERVER}, "at_least": 6}}))
    assert {one.name for one in built["filters"].inputs} == {"prompts", "start"}


def test_filters_of_demonstrations_ask_the_start_before_it_is_trained() -> None:
    built = stages(filtered("sft", {"ifd": [0.1, 0.9]}))
    assert {one.name for one in built["demonstrations"].inputs} == {"start-before-sft"}
    assert built["demonstrations"] in built["start"].inputs
    assert changed(RunConfig.model_validate(config()), filtered("sft", {"cut_off": True})) >= {"demonstrations", "start"}


def test_filters_of_ready_made_rankings_change_them() -> None:
    ready: dict[str, Any] = {"prompts": None, "judge": None}
    source = {"source": {"path": "r.jsonl"}}
    plain = RunConfig.model_validate(config(**ready, rankings=source))
    assert not changed(plain, plain)
    assert "rankings" in changed(plain, filtered("rankings", {"refusals": True}, **ready, rankings=source))
