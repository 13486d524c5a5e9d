"""Where data comes from: licences given and found, addresses without what is secret, and what stages cost."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from aligndistill.commands.check.licences import unlicensed
from aligndistill.config.load import load_config
from aligndistill.config.resolve import resolved
from aligndistill.config.run import RunConfig
from aligndistill.pipeline import pipeline
from aligndistill.reporting.provenance import Energy, ModelOrigin
from aligndistill.stages.provenance import licence_in, models_asked, origins, stage_origin
from aligndistill.store.artifacts import finish
from tests.e2e.small_run import write_config

CARD = "---\nlanguage: en\nlicense: gemma\ntags:\n- x\n---\n# A model\nlicense: mit\n"


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        (CARD, "gemma"),
        (CARD.replace("\n", "\r\n"), "gemma"),
        ("---\nlicense: other\nlicense_name: llama3\n---\n", "llama3"),
        ("---\nlicense: other\n---", "other"),
        ("---\nlanguage: en\n---\n", None),
        ("# A model\nlicense: mit\n", None),
        ("---\n[broken: {yaml\n---\n", None),
        ("---\n- a list\n---\n", None),
        ("", None),
    ],
)
def test_the_licence_in_a_card(tmp_path: Path, text: str, licence: str | None) -> None:
    (tmp_path / "README.md").write_text(text, newline="")
    assert licence_in(tmp_path / "README.md") == licence


def test_a_folder_without_a_card_names_none(tmp_path: Path) -> None:
    assert licence_in(tmp_path / "README.md") is None


def config(folder: Path, **sections: Any) -> RunConfig:
    for name in ("teacher", "data"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "README.md").write_text(CARD.replace("gemma", f"{name}-licence"))
    (folder / "data" / "p.jsonl").write_text(json.dumps({"prompt": "a"}) + "\n")
    base = {
        "name": "x",
        "prompts": {"source": {"path": str(folder / "data" / "p.jsonl")}},
        "start": {"from_scratch": {"vocab_size": 300}},
        "sft": {"demonstrations": {"path": "somebody/answers", "revision": "abc", "licence": "cc-by-4.0"}},
        "teacher": {"model": str(folder / "teacher")},
        "models": {
            "served": {
                "kind": "endpoint",
                "base_url": "https://api.example.com:8443/v1/secret-tenant",
                "name": "big-model",
                "licence": "terms of service",
                "outputs_may_train": "no",
            },
            "hub": {"model": "org/name", "revision": "c0ffee"},
        },
        "judge": {"kind": "rubric", "model": "served"},
        "students": {"dpo": {"objective": {"kind": "dpo"}}},
    }
    write_config(folder / "run.yaml", {**base, **sections})
    return load_config(folder / "run.yaml")


def test_models_and_data_with_their_licences(tmp_path: Path) -> None:
    found = origins(resolved(config(tmp_path)))
    models = {one.name: one for one in found.models}
    assert models["start"].model == "from scratch"
    assert (models["teacher"].model, models["teacher"].licence, models["teacher"].outputs_may_train) == (
        "teacher",
        "teacher-licence",
        "unknown",
    )
    assert models["teacher"].revision is not None
    assert models["served"] == ModelOrigin(
        name="served", model="big-model", server="api.example.com:8443", licence="terms of service", outputs_may_train="no"
    )
    assert (models["hub"].revision, models["hub"].licence) == ("c0ffee", "unknown")
    data = {one.key: one for one in found.data}
    assert (data["prompts.source"].data, data["prompts.source"].licence) == ("p.jsonl", "data-licence")
    assert (data["sft.demonstrations"].revision, data["sft.demonstrations"].licence) == ("abc", "cc-by-4.0")
    text = found.model_dump_json()
    assert "secret-tenant" not in text
    assert str(tmp_path) not in text  # paths say whose machine it is


def test_a_function_is_known_by_its_name_and_its_code(tmp_path: Path) -> None:
    function = {"kind": "function", "function": "examples.happy_endings:ends_well", "licence": "mit"}
    (found,) = [one for one in origins(resolved(config(tmp_path, teacher=function))).models if one.name == "teacher"]
    code = Path("examples/happy_endings.py").read_bytes()
    assert (found.model, found.licence) == ("examples.happy_endings:ends_well", "mit")
    assert found.revision == hashlib.sha256(code).hexdigest()[:16]


def test_check_names_models_without_a_licence(tmp_path: Path) -> None:
    assert [(".".join(map(str, one.path)), one.text.split(":")[0]) for one in unlicensed(config(tmp_path))] == [
        ("models.served.outputs_may_train", "this run trains a model on what this one writes or says, and this says no"),
        ("models.hub.licence", "the licence of this model is not known"),
    ]


def test_a_licence_changes_no_stage_but_the_report(tmp_path: Path) -> None:
    before = {one.name: one.fingerprint for one in pipeline(config(tmp_path)).stages}
    teacher = {"model": str(tmp_path / "teacher"), "licence": "mit", "outputs_may_train": "yes"}
    after = {one.name: one.fingerprint for one in pipeline(config(tmp_path, teacher=teacher)).stages}
    assert {name for name in before if before[name] != after[name]} == {"report"}


def test_a_price_changes_no_stage_and_reaches_those_in_which_models_write(tmp_path: Path) -> None:
    written = {
        "prompts": {
            "source": {"path": str(tmp_path / "data" / "p.jsonl")},
            "elicit": [{"name": "more", "kind": "expand", "target": 4, "model": "served"}],
        },
        "candidates": {"from": ["start", "served"], "revise": {"model": "served"}},
        "sft": {"demonstrations": {"label": {"model": "served", "revise": {"model": "served"}, "keep": "all"}}},
    }
    price = {"prompt": 2.0, "completion": 10.0}
    free, priced = (
        pipeline(config(tmp_path, **written)),
        pipeline(config(tmp_path, **written, budget={"prices": {"big-model": price}})),
    )
    assert [one.fingerprint for one in free.stages] == [one.fingerprint for one in priced.stages]
    given = {one.name: one.given["prices"] for one in priced.stages if "prices" in one.given}
    assert given.keys() == {"prompts-more", "drafts", "candidates", "labels", "labels-revised"}
    assert all({name: one.model_dump() for name, one in prices.items()} == {"served": price} for prices in given.values())


def test_a_stage_says_who_wrote_how_and_at_what_cost(tmp_path: Path) -> None:
    stages = {one.name: one for one in pipeline(config(tmp_path)).stages}
    assert models_asked(stages["candidates"]) == ("start",)
    assert models_asked(stages["verdicts"]) == ("served",)
    assert models_asked(stages["rankings"]) == ()
    folder = tmp_path / "verdicts-1"
    folder.mkdir()
    (folder / "generated.jsonl").touch()
    spent = {"requests": 12, "tokens": 3000, "usd": 0.6}
    energy = Energy(watt_hours=1.5, how="estimate: x")
    assert stage_origin(stages["verdicts"], folder, spent, energy) is None  # not finished
    finish(
        folder,
        stage="verdicts",
        stage_fingerprint=stages["verdicts"].fingerprint,
        counts={"tasks": 4, "verdicts": 6},
        dropped={},
        metrics={},
        wall_seconds=5.0,
    )
    found = stage_origin(stages["verdicts"], folder, spent, energy)
    assert found is not None
    assert (found.models, found.tokens, found.usd, found.tokens_per_row) == (("served",), 3000, 0.6, 500)
    assert found.usd_per_row == pytest.approx(0.1)
    assert found.sampling["judge"]["kind"] == "rubric"
    assert found.sampling["seed"] == 0
    assert len(found.templates["rubric"]) == 16
    assert found.generated == "generated.jsonl"
    assert found.first < found.last
    assert stage_origin(stages["rankings"], folder, spent, energy) is None


def test_a_stage_that_a_server_writes_in_says_nothing_of_its_path(tmp_path: Path) -> None:
    server = {"kind": "endpoint", "base_url": "https://api.example.com/v1/secret-tenant", "name": "big", "api_key_env": "KEY_NAME"}
    judge = {"kind": "rubric", "model": "teacher"}
    whole = config(tmp_path, teacher=server, judge=judge, models={}, evaluation={"judge": judge, "against_teacher": True})
    (stage,) = (one for one in pipeline(whole).stages if one.name == "answers-teacher")
    folder = tmp_path / "answers-1"
    folder.mkdir()
    about = {"stage": stage.name, "stage_fingerprint": stage.fingerprint, "wall_seconds": 5.0}
    finish(folder, **about, counts={"answers": 6}, dropped={}, metrics={})
    found = stage_origin(stage, folder, {}, None)
    assert found is not None
    assert found.models == ("teacher",)
    assert found.usd_per_row is None
    assert found.generated is None
    assert "secret-tenant" not in found.model_dump_json()
    assert found.sampling["sampling"]["temperature"] == 1.0
