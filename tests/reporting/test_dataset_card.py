from dataclasses import replace

import pytest
from huggingface_hub import DatasetCard

from aligndistill.reporting.card_text import Terms
from aligndistill.reporting.dataset_card import DataFacts, DataPart, dataset_card, licence
from aligndistill.reporting.provenance import DataOrigin, ModelOrigin, Origins, Provenance, StageOrigin


def model(name: str, licence: str, **more: str) -> ModelOrigin:
    return ModelOrigin.model_validate({"name": name, "model": f"org/{name}", "licence": licence, **more})


def data(licence: str, **more: str) -> DataOrigin:
    return DataOrigin.model_validate({"key": "prompts.source", "data": "some/data", "licence": licence, **more})


@pytest.mark.parametrize(
    ("origins", "expected"),
    [
        (Origins(models=(model("a", "mit"), model("b", "mit")), data=(data("mit"),)), ("mit", None)),
        (Origins(models=(model("a", "mit"),), data=(data("unknown"),)), ("unknown", None)),
        (Origins(models=(model("a", "mit"), model("b", "gemma"))), ("other", "several, see below")),
        (
            Origins(models=(model("a", "none: trained in this run", model="from scratch"),), data=(data("cc0-1.0"),)),
            ("cc0-1.0", None),
        ),
        (Origins(), ("unknown", None)),
    ],
)
def test_the_licence_is_what_all_agree_on(origins: Origins, expected: tuple[str, str | None]) -> None:
    assert licence(origins) == expected


def test_the_hub_reads_the_card() -> None:
    origins = Origins(
        models=(model("teacher", "apache-2.0", outputs_may_train="yes", server="a|b"),), data=(data("mit", revision="abc"),)
    )
    stage = StageOrigin(
        stage="candidates",
        artifact="candidates-1",
        models=("teacher",),
        sampling={},
        templates={},
        first="2026-01-01T00:00:00+00:00",
        last="2026-01-01T00:01:00+00:00",
        wall_seconds=60.0,
        tokens=1234,
        usd=0.5,
        rows={"candidates": 40},
        dropped={"duplicate": 2},
    )
    facts = DataFacts(
        provenance=Provenance(run="my run: ü", origins=origins, stages=(stage,)),
        terms=Terms(),
        parts=[
            DataPart("preferences", "trl", {"train": "p/train.jsonl"}, {"train": 1500}, {"train": 10}, ["prompt"], '{"a": "```"}'),
            DataPart("votes", "votes", {"held_out": "v.jsonl"}, {"held_out": 20}, {"held_out": 7}, ["vote"], "{}"),
        ],
        authors={"teacher": 3, "start": 1},
        shared=2,
        templates={"general": "Which is better?"},
    )
    card = DatasetCard(dataset_card(facts))
    assert card.data.license == "other"
    assert card.data.license_name == "several, see below"
    assert card.data.pretty_name == "my run: ü (trl, votes)"
    assert card.data.size_categories == ["1K<n<10K"]
    assert card.data.task_categories == ["text-generation"]
    assert card.data.annotations_creators == ["machine-generated", "other"]
    assert card.data.source_datasets == ["some/data"]
    values = card.data.to_dict()
    assert values["configs"][0] == {
        "config_name": "preferences",
        "data_files": [{"split": "train", "path": "p/train.jsonl"}],
        "default": True,
    }
    assert values["dataset_info"][1]["splits"] == [{"name": "held_out", "num_bytes": 7, "num_examples": 20}]
    made = "2026-01-01T00:00:00+00:00 | 2026-01-01T00:01:00+00:00 | 40 candidates | 2 duplicate | 1,234 | 0.50 |"
    assert "| teacher | org/teacher | a\\|b |  | apache-2.0 | yes |" in card.text
    assert f"| candidates | teacher | {made}" in card.text
    assert '````json\n{"a": "```"}\n````' in card.text
    assert "Authors of the 4 ranked answers: teacher 75%, start 25%." in card.text
    assert "both in the training and in the held-out rows: 2." in card.text
    assert "Which is better?" in card.text
    licensed = DatasetCard(dataset_card(replace(facts, terms=Terms("cc-by-4.0", language=("en", "de")))))
    assert (licensed.data.license, licensed.data.language) == ("cc-by-4.0", ["en", "de"])
    assert "license_name" not in licensed.data.to_dict()
