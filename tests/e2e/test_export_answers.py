"""A finished run's prompts and answers in other tools' forms, with a card beside them."""

from pathlib import Path

import datasets
import pytest
from huggingface_hub import DatasetCard

from aligndistill.commands.export import export_run
from aligndistill.config.data import Source
from aligndistill.data.loading import load_demonstrations, load_items
from aligndistill.errors import DataError
from aligndistill.records import Prompt, Ranking
from aligndistill.store.jsonl import read_jsonl
from tests.e2e.conftest import FinishedRun


@pytest.mark.parametrize("form", ["messages", "easydistill", "distilabel-sft"])
def test_the_best_answers_to_training_prompts(
    small_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.chdir(small_run.folder)
    output = tmp_path / "train.jsonl"
    rankings = [one for one in read_jsonl(small_run.made("rankings") / "rankings.jsonl", Ranking) if one.split == "train"]
    assert export_run(Path("runs/small"), output, form) == len(rankings)  # type: ignore[arg-type]
    found = load_demonstrations(Source(path=str(output)), 0.0).all().records
    assert [(one.messages, one.response) for one in found] == [(one.messages, one.responses[0].text) for one in rankings]
    loaded = datasets.load_dataset(str(tmp_path), split="train")  # by the card's `configs`
    assert len(loaded) == len(rankings)
    card = DatasetCard.load(tmp_path / "README.md")
    assert card.data.license == "unknown"  # the data of the small run has none
    if form == "easydistill":
        usages = [row["metadata"]["usage"] for row in loaded]
        assert all(one["total_tokens"] == one["prompt_tokens"] + one["completion_tokens"] for one in usages)
        assert all(one["prompt_tokens"] > 0 and one["completion_tokens"] > 0 for one in usages)
    if form != "messages":
        assert {row["metadata"]["model"] if form == "easydistill" else row["model_name"] for row in loaded} == {"from scratch"}


def test_training_prompts_alone(small_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(small_run.folder)
    prompts = [one for one in read_jsonl(small_run.made("prompts") / "prompts.jsonl", Prompt) if one.split == "train"]
    assert export_run(Path("runs/small"), tmp_path / "p.jsonl", "prompts") == len(prompts)
    assert [one.messages for one in load_items(Source(path=str(tmp_path / "p.jsonl")))] == [one.messages for one in prompts]


def test_a_card_of_somebody_else_is_left_as_it_is(small_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(small_run.folder)
    (tmp_path / "README.md").write_text("my notes")
    export_run(Path("runs/small"), tmp_path / "r.jsonl", "rankings")
    assert (tmp_path / "README.md").read_text() == "my notes"


def test_a_run_without_answers_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "artifacts.json").write_text("{}")
    with pytest.raises(DataError, match="until rankings"):
        export_run(Path("run"), tmp_path / "out.jsonl", "messages")
    with pytest.raises(DataError, match="until prompts"):
        export_run(Path("run"), tmp_path / "out.jsonl", "prompts")
