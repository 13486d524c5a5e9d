import pytest
from huggingface_hub import DatasetCard

from aligndistill.reporting.dataset_card import MARK, dataset_card, licence
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
    text = dataset_card(
        Provenance(run="my run: ü", origins=origins, stages=(stage,)), "train.jsonl", "messages", 1500, '{"a": "---"}'
    )
    card = DatasetCard(text)
    assert card.data.license == "other"
    assert card.data.license_name == "several, see below"
    assert card.data.pretty_name == "my run: ü (messages)"
    assert card.data.size_categories == ["1K<n<10K"]
    assert card.data.task_categories == ["text-generation"]
    assert card.data.source_datasets == ["some/data"]
    assert card.data.to_dict()["configs"] == [{"config_name": "default", "data_files": [{"split": "train", "path": "train.jsonl"}]}]
    made = "2026-01-01T00:00:00+00:00 | 2026-01-01T00:01:00+00:00 | 40 candidates | 2 duplicate | 1,234 | 0.50 |"
    assert MARK in card.text
    assert "| teacher | org/teacher | a\\|b |  | apache-2.0 | yes |" in card.text
    assert f"| candidates | teacher | {made}" in card.text
