"""Labels, revisions and domains in a config: what is refused, resolved, and asked again after a change."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from aligndistill.config.checks import check
from aligndistill.config.labels import Labelled
from aligndistill.config.load import dump_config, load_config
from aligndistill.config.resolve import resolved
from aligndistill.config.run import RunConfig
from aligndistill.pipeline import pipeline

SERVER = {"kind": "endpoint", "base_url": "http://localhost:1/v1", "name": "m"}
FUNCTION = {"keep": "function", "function": "a:b"}


def config(label: dict[str, Any] | None = None, **sections: Any) -> RunConfig:
    base = {
        "name": "x",
        "prompts": {"source": {"path": "p.jsonl"}},
        "start": {"model": "some/model"},
        "teacher": SERVER,
        "judge": {"kind": "rubric"},
        "students": {"dpo": {"objective": {"kind": "dpo"}}},
    }
    sft = {} if label is None else {"sft": {"demonstrations": {"label": label}}}
    return RunConfig.model_validate({**base, **sft, **sections})


def problems(found: RunConfig) -> list[tuple[str, str]]:
    return [(".".join(map(str, one.path)), one.text) for one in check(found)]


@pytest.mark.parametrize(
    ("label", "sections", "key", "said"),
    [
        ({"model": "techer"}, {}, "model", "there is no model 'techer'; did you mean 'teacher'?"),
        ({}, {"teacher": None, "judge": {"kind": "function", "function": "a:b"}}, "model", "there is no model 'teacher'"),
        ({"revise": {"model": "x"}}, {}, "revise.model", "there is no model 'x'"),
        ({"model": "start"}, {"start": {"from_scratch": {}}}, "model", "has written nothing before `sft`"),
        ({"keep": "judge", "per_prompt": 2}, {"judge": None, "students": {}}, "keep", "keep: judge needs a judge"),
        ({"keep": "judge"}, {}, "per_prompt", "of a single answer the judge has none to choose"),
        ({"keep": "judge", "at_least": 7, "judge": {"kind": "pairwise"}}, {}, "at_least", "a pairwise judge compares answers"),
        ({"keep": "judge", "at_least": 7, "judge": {"kind": "rubric", "model": "x"}}, {}, "judge.model", "there is no model 'x'"),
        (
            {"keep": "judge", "at_least": 7, "judge": {"kind": "likelihood"}},
            {},
            "judge.model",
            "which an endpoint does not provide",
        ),
    ],
)
def test_labels_that_cannot_be_written(label: dict[str, Any], sections: dict[str, Any], key: str, said: str) -> None:
    found = [text for path, text in problems(config(label, **sections)) if path == f"sft.demonstrations.label.{key}"]
    assert len(found) == 1
    assert said in found[0]


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ({"keep": "function"}, "keep: function needs 'function'"),
        ({"function": "a:b"}, "'function' is used with keep: function only"),
        ({"judge": {"kind": "rubric"}}, "'judge' is used with keep: judge only"),
        ({"answer": "x"}, "'answer' is used with keep: agreement only"),
        ({"at_least": 1}, "'at_least' has no effect with keep: all"),
        ({"keep": "agreement", "per_prompt": 2}, "set per_prompt to 3 or more"),
        ({"keep": "agreement", "per_prompt": 3, "at_least": 2}, "'at_least' is a share of the answers"),
        ({"keep": "agreement", "per_prompt": 3, "answer": "("}, "this is not a regular expression"),
        ({"per_prompt": 2, "temperature": 0}, "at temperature 0 all answers to a prompt are the same"),
        ({**FUNCTION, "hint_on_failure": True}, "'hint_on_failure' needs keep: function, which says what failed, and 'references'"),
        ({"hint_on_failure": True, "references": {"path": "x"}}, "'hint_on_failure' needs keep: function"),
        ({**FUNCTION, "references": {"path": "x"}}, "'references' is used for hints only"),
        ({"rationale": "before", "rationale_weight": 0.3}, "'rationale_weight' has an effect with rationale: task only"),
        ({"revise": {"principles": []}}, "there are no principles"),
    ],
)
def test_keys_that_do_not_fit_together(label: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said.replace("(", r"\(")):
        config(label)


def test_revisions_need_a_model_and_a_judge() -> None:
    assert problems(config(candidates={"revise": {}})) == []
    assert [key for key, _ in problems(config(candidates={"revise": {"model": "x"}}))] == ["candidates.revise.model"]
    without = config(candidates={"revise": {}}, judge=None, students={"ppo": {"objective": {"kind": "ppo", "reward": "judge"}}})
    assert "candidates.revise" in [key for key, _ in problems(without)]


def test_a_single_candidate_and_its_revision_can_be_ranked() -> None:
    assert problems(config(candidates={"per_prompt": 1, "revise": {}})) == []
    assert [key for key, _ in problems(config(candidates={"per_prompt": 1}))] == ["candidates.per_prompt"]


def test_prompts_of_ready_made_rankings_may_be_labelled() -> None:
    ready = config({}, prompts=None, judge=None, rankings={"source": {"path": "r.jsonl"}})
    assert problems(ready) == []
    stages = {stage.name: stage for stage in pipeline(ready).stages}
    assert stages["labels"].given["prompts"] is stages["prompts"]
    assert stages["prompts"].kind == "prompts.of_rankings"


@pytest.mark.parametrize(
    "label",
    [
        {},
        {"keep": "judge", "at_least": 7, "judge": {"kind": "rubric", "domain": "law"}, "revise": {"principles": ["Be right."]}},
        {**FUNCTION, "hint_on_failure": True, "references": {"path": "x"}, "examples": {"path": "y", "choose": "nearest"}},
        {"keep": "agreement", "per_prompt": 3, "rationale": "task", "rationale_weight": 0.3, "model": SERVER},
    ],
)
def test_a_config_that_is_written_out_is_read_back(label: dict[str, Any], tmp_path: Path) -> None:
    whole = config(label, candidates={"revise": {"domain": "code"}})
    (tmp_path / "run.yaml").write_text(dump_config(whole))
    assert load_config([tmp_path / "run.yaml"]) == whole


def test_what_labels_imply_is_spelled_out() -> None:
    label = {"keep": "judge", "at_least": 7, "model": SERVER | {"name": "other"}, "domain": "law", "revise": {}}
    found = resolved(config(label))
    assert found.sft is not None
    assert found.sft.label is not None
    assert found.sft.label.judge == found.judge
    assert found.sft.label.model == "label"
    assert found.endpoints["label"].name == "other"
    assert found.sft.label.revise is not None
    assert found.sft.label.revise.domain == "law"


def test_a_file_and_labels_replace_each_other_in_later_files(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(
        "name: x\nprompts: {source: {path: p}}\nstart: {model: m}\nteacher: {model: t}\njudge: {kind: likelihood}\n"
        "sft: {demonstrations: {path: d.jsonl, limit: 9}}\n"
    )
    (tmp_path / "two.yaml").write_text("sft: {demonstrations: {label: {per_prompt: 2}}}\n")
    (tmp_path / "three.yaml").write_text("sft: {demonstrations: {path: e.jsonl}}\n")
    one, two, three = (tmp_path / f"{name}.yaml" for name in ("one", "two", "three"))
    sft = load_config([one, two]).sft
    assert sft is not None
    assert isinstance(sft.demonstrations, Labelled)
    assert sft.demonstrations.label.per_prompt == 2
    back = load_config([one, two, three]).sft
    assert back is not None
    assert not isinstance(back.demonstrations, Labelled)
    assert (back.demonstrations.path, back.demonstrations.limit) == ("e.jsonl", None)


def fingerprints(found: RunConfig) -> dict[str, str]:
    return {stage.name: stage.fingerprint for stage in pipeline(found).stages}


def test_another_decision_asks_the_model_nothing_again() -> None:
    voted = fingerprints(config({"per_prompt": 4, "keep": "agreement"}))
    graded = fingerprints(config({"per_prompt": 4, "keep": "judge", "at_least": 7}))
    assert voted["labels"] == graded["labels"]
    assert voted["demonstrations"] != graded["demonstrations"]
    assert voted["start"] != graded["start"]
    assert "labels-judged" in graded
    more = fingerprints(config({"per_prompt": 5, "keep": "agreement"}))
    assert more["labels"] != voted["labels"]


def test_another_weight_of_rationales_trains_again_and_asks_nothing() -> None:
    half, third = (fingerprints(config({"rationale": "task", "rationale_weight": weight})) for weight in (0.5, 0.3))
    assert {name for name in half if half[name] != third[name]} >= {"start", "student-dpo"}
    assert half["demonstrations"] == third["demonstrations"]


def test_revisions_keep_the_candidates_that_are_there() -> None:
    plain, revised = fingerprints(config()), fingerprints(config(candidates={"revise": {}}))
    assert revised["drafts"] == plain["candidates"]
    assert revised["candidates"] != plain["candidates"]
    assert fingerprints(config(candidates={"revise": {"times": 2}}))["drafts"] == plain["candidates"]


def test_a_start_that_labels_is_the_one_before_them() -> None:
    stages = {stage.name: stage for stage in pipeline(config({"model": "start"})).stages}
    assert stages["labels"].given["authors"]["start"] is stages["start-before-sft"]
    assert stages["start-before-sft"] in stages["start"].upstream
    assert stages["student-dpo"].given["start"] is stages["start"]


def test_a_domain_is_part_of_a_judge() -> None:
    general, finance = (fingerprints(config(judge={"kind": "rubric", "domain": domain})) for domain in (None, "finance"))
    assert general["verdicts"] == fingerprints(config())["verdicts"]
    assert finance["verdicts"] != general["verdicts"]
