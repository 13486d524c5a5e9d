"""Prompts and answers that are written for other tools are read by those tools, and come back as they were."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from trl import data_utils

from aligndistill.config.data import Source
from aligndistill.data.answer_exports import (
    WrittenAnswer,
    answer_of,
    distilabel_answer_row,
    easydistill_row,
    messages_row,
    prompt_row,
)
from aligndistill.data.loading import load_demonstrations, load_items
from aligndistill.records import Demonstration, Message, Ranking, Response, prompt_id
from tests.tiny_models import tiny_tokenizer, user

TURNS = (
    Message(role="system", content="Be brief."),
    Message(role="user", content="Hello."),
    Message(role="assistant", content="Hi!"),
    Message(role="user", content='Name a "colour".\n请用中文'),
)
ANSWERS = [
    WrittenAnswer(user("What is 2 + 3?"), "Five.\u2028", "big-model", "api.example.com", "aligndistill x", (12, 3)),
    WrittenAnswer(TURNS, "红色。\n", None, None, "aligndistill x"),
]


def written(rows: list[dict[str, Any]], folder: Path) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("row_of", [messages_row, easydistill_row, distilabel_answer_row])
@pytest.mark.parametrize("form", ["auto", "named"])
def test_answers_come_back_whole(row_of: Any, form: str, tmp_path: Path) -> None:
    path = written([row_of(one) for one in ANSWERS], tmp_path)
    named = "distilabel" if row_of is distilabel_answer_row else "prompts"
    source = Source.model_validate({"path": str(path), "format": "auto" if form == "auto" else named})
    found = load_demonstrations(source, 0.0).all().records
    assert [(one.messages, one.response) for one in found] == [(one.messages, one.response) for one in ANSWERS]
    assert [one.messages for one in load_items(source)] == [one.messages for one in ANSWERS]


def test_prompts_come_back_whole(tmp_path: Path) -> None:
    path = written([prompt_row(one.messages) for one in ANSWERS], tmp_path)
    assert [one.messages for one in load_items(Source(path=str(path)))] == [one.messages for one in ANSWERS]


def test_trl_takes_them_for_what_they_are(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    rows = datasets.load_dataset("json", data_files=str(written([messages_row(one) for one in ANSWERS], tmp_path)), split="train")
    for row, one in zip(rows, ANSWERS, strict=True):
        assert data_utils.is_conversational(row)
        text = data_utils.apply_chat_template(row, tokenizer)["text"]
        assert one.response in text
        assert all(turn.content in text for turn in one.messages)
    rows = datasets.load_dataset("json", data_files=str(written([prompt_row(TURNS)], tmp_path)), split="train")
    assert data_utils.is_conversational(rows[0])
    assert TURNS[-1].content in data_utils.apply_chat_template(rows[0], tokenizer)["prompt"]


@pytest.mark.parametrize("row_of", [easydistill_row, distilabel_answer_row])
def test_every_row_of_a_file_has_the_same_columns(row_of: Any, tmp_path: Path) -> None:
    rows = datasets.load_dataset("json", data_files=str(written([row_of(one) for one in ANSWERS], tmp_path)), split="train")
    assert [row_of(one) for one in ANSWERS] == list(rows)


def test_rows_name_their_model_and_where_it_ran() -> None:
    first = easydistill_row(ANSWERS[0])["metadata"]
    assert (first["model"], first["backend"], first["usage"]) == (
        "big-model",
        "api.example.com",
        {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15},
    )
    assert easydistill_row(ANSWERS[1])["metadata"]["usage"] is None
    assert first["request_id"] != easydistill_row(ANSWERS[1])["metadata"]["request_id"]
    row = distilabel_answer_row(ANSWERS[0])
    assert row["model_name"] == "big-model"
    assert row["distilabel_metadata"]["statistics_chat_generation_0"] == {"input_tokens": 12, "output_tokens": 3}
    assert row["distilabel_metadata"]["raw_output_chat_generation_0"] == "Five.\u2028"
    assert row["distilabel_metadata"]["raw_input_chat_generation_0"] == [{"role": "user", "content": "What is 2 + 3?"}]


def test_the_best_answer_of_a_ranking_and_a_demonstration() -> None:
    messages, models = user("What?"), {"teacher": ("big-model", "api.example.com")}
    responses = tuple(
        Response(text=text, score=score, candidate_id=text, author=author)
        for text, score, author in (("Good.", 1.0, "teacher"), ("Bad.", 0.0, "start"))
    )
    ranking = Ranking(prompt_id=prompt_id(messages), split="train", messages=messages, responses=responses)
    assert answer_of(ranking, models, "x", (5, 1)) == WrittenAnswer(messages, "Good.", "big-model", "api.example.com", "x", (5, 1))
    demonstration = Demonstration(prompt_id=prompt_id(messages), split="train", messages=messages, response="So.")
    assert answer_of(demonstration, models, "x") == WrittenAnswer(messages, "So.", None, None, "x")


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ({"instruction": "a?", "generation": "b", "model_name": "m"}, user("a?")),
        ({"instruction": "a?", "system_prompt": "s", "generation": "b"}, (Message(role="system", content="s"), *user("a?"))),
        ({"instruction": "a?", "system_prompt": None, "messages": None, "generation": "b"}, user("a?")),
    ],
)
def test_rows_of_distilabels_own_generation_steps_are_read(row: dict[str, Any], messages: Any, tmp_path: Path) -> None:
    (found,) = load_demonstrations(Source(path=str(written([row], tmp_path))), 0.0).all().records
    assert (found.messages, found.response) == (messages, "b")
