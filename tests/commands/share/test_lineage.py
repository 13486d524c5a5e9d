"""Exported rows of a run whose prompts a model wrote: another run splits them as that run's own prompts."""

import json
from pathlib import Path

import datasets
import pytest

from aligndistill.commands.share.rows import Data, rows_of
from aligndistill.config.data import Source
from aligndistill.data.loading import load_demonstrations, load_prompts, load_rankings
from aligndistill.records import Lineage, Prompt, Ranking, Response, prompt_id
from aligndistill.stages.files import PROMPTS, RANKINGS
from aligndistill.store.jsonl import write_jsonl
from tests.tiny_models import user

HELD_OUT = 0.25
ANSWERS = ("messages", "easydistill", "distilabel-sft")
RANKED: tuple[tuple[Data, str], ...] = (
    ("rankings", "rankings"),
    ("rankings", "distilabel"),
    ("rankings", "ultrafeedback"),
    ("preferences", "trl"),
)


def prompts(elicited: bool) -> list[Prompt]:
    """40 of the user's own; then 3 that a model made from each."""
    own = [Prompt(id=prompt_id(user(text)), messages=user(text), source="x", split="train") for text in map(str, range(40))]
    new = [
        Prompt(
            id=prompt_id(user(f"from {root.id} {number}")),
            messages=user(f"from {root.id} {number}"),
            source="w",
            split="train",
            lineage=Lineage(root=root.id, parent=root.id if number else None, operation="expand", author="teacher"),
        )
        for root in own
        for number in range(3)
    ]
    return [*own, *new] if elicited else own


def finished_run(folder: Path, elicited: bool = True) -> Path:
    """A run with prompts and rankings."""
    (folder / "run").mkdir()
    folders = {"prompts": folder / "prompts", "rankings": folder / "rankings"}
    for one in folders.values():
        one.mkdir()
    rows = prompts(elicited)
    write_jsonl(folders["prompts"] / PROMPTS, rows)
    responses = tuple(Response(text=text, score=score, candidate_id=text) for text, score in (("good", 1.0), ("bad", 0.0)))
    rankings = [Ranking(prompt_id=one.id, split="train", messages=one.messages, responses=responses) for one in rows]
    write_jsonl(folders["rankings"] / RANKINGS, rankings)
    (folder / "run" / "artifacts.json").write_text(json.dumps({name: str(path) for name, path in folders.items()}))
    return folder / "run"


def exported(run: Path, data: Data, form: str) -> Path:
    path = run / f"{data}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for _, row in rows_of(run, data, form)))
    return path


def splits(run: Path) -> dict[str, str]:
    """By prompt, in a second run with this run's prompts as its source."""
    found = {one.id: one.split for one in load_prompts(Source(path=str(run.parent / "prompts" / PROMPTS)), HELD_OUT)}
    assert len(found) == 160
    assert set(found.values()) == {"train", "held_out"}
    return dict(found)


@pytest.mark.parametrize("form", ANSWERS)
def test_no_answer_to_a_held_out_prompt_is_trained_on(tmp_path: Path, form: str) -> None:
    run = finished_run(tmp_path)
    answers = list(load_demonstrations(Source(path=str(exported(run, "answers", form))), HELD_OUT))
    held_out = {prompt for prompt, split in splits(run).items() if split == "held_out"}
    assert not held_out & {one.prompt_id for one in answers if one.split == "train"}
    assert {one.prompt_id: one.split for one in answers} == splits(run)


@pytest.mark.parametrize(("data", "form"), RANKED)
def test_rankings_are_split_as_their_prompts(tmp_path: Path, data: Data, form: str) -> None:
    run = finished_run(tmp_path)
    found = load_rankings(Source(path=str(exported(run, data, form))), HELD_OUT)
    assert {one.prompt_id: one.split for one in found} == splits(run)


def test_prompts_come_back_with_their_lineage(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    found = list(load_prompts(Source(path=str(exported(run, "prompts", "prompts"))), HELD_OUT))
    assert {one.id: one.split for one in found} == splits(run)
    assert [one.lineage for one in found] == [one.lineage for one in prompts(elicited=True)]


@pytest.mark.parametrize(("data", "form"), [("prompts", "prompts"), *(("answers", form) for form in ANSWERS), *RANKED])
def test_datasets_reads_a_file_that_begins_with_prompts_of_the_user(tmp_path: Path, data: Data, form: str) -> None:
    """The type of a column is that of a file's first block, so every row must have all parts of the lineage."""
    path = exported(finished_run(tmp_path), data, form)
    read = datasets.load_dataset("json", data_files=str(path), split="train", chunksize=2000, cache_dir=str(tmp_path / "cache"))
    assert path.stat().st_size > 10 * 2000
    assert list(read["lineage"]) == [json.loads(line)["lineage"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize(("data", "form"), [("prompts", "prompts"), *(("answers", form) for form in ANSWERS), *RANKED])
def test_rows_of_a_run_with_prompts_of_the_user_alone_have_no_such_column(tmp_path: Path, data: Data, form: str) -> None:
    assert not any("lineage" in row for _, row in rows_of(finished_run(tmp_path, elicited=False), data, form))
