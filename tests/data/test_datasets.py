"""Rows in the shapes that other judges' data sets have, with the scores worked out by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from aligndistill.config.data import Source
from aligndistill.data.files import BadRow, SourceRow
from aligndistill.data.formats import Format, ScoredRow, format_of, read_judged, read_prompt
from aligndistill.data.loading import load_judgments, load_prompts

ULTRAFEEDBACK: dict[str, Any] = {
    "source": "evol_instruct",
    "instruction": "Name a colour.",
    "models": ["m1", "m2", "m3"],
    "completions": [
        {
            "model": "m1",
            "response": "Red.",
            "annotations": {
                "helpfulness": {"Rating": "5", "Rationale": "Yes."},
                "honesty": {"Rating": "4"},
                "truthfulness": {"Rating": "N/A"},
            },
            "overall_score": 1.0,
        },
        {"model": "m2", "response": "No.", "annotations": {"helpfulness": {"Rating": "N/A"}}, "overall_score": 2.5},
        {"model": "m3", "response": "Blue?", "annotations": {}},
    ],
    "correct_answers": ["None"],
}
DISTILABEL = {
    "instruction": "Name a colour.",
    "generations": ["Red.", "No.", "Blue!"],
    "generation_models": ["m1", "m2", "m3"],
    "ratings": [5, 1, None],
    "rationales": ["Good.", "Bad.", None],
    "model_name": "judge",
}
REWARDBENCH_2 = {
    "id": "7",
    "prompt": "What is 1 + 1?",
    "chosen": ["2", "Two."],
    "rejected": ["3", "4"],
    "num_correct": 2,
    "total_completions": 4,
    "subset": "Ties",
}
REWARDBENCH_1 = {
    "prompt": "What is 1 + 1?",
    "chosen": "2",
    "chosen_model": "gpt",
    "rejected": "3",
    "rejected_model": "alpaca",
    "subset": "math",
    "id": 7,
}
DISTILABEL_DPO = {
    "prompt": "What is 1 + 1?",
    "prompt_id": "x",
    "chosen": [{"role": "user", "content": "What is 1 + 1?"}, {"role": "assistant", "content": "2"}],
    "chosen_rating": 5.0,
    "chosen_model": "m1",
    "rejected": [{"role": "user", "content": "What is 1 + 1?"}, {"role": "assistant", "content": "3"}],
    "rejected_rating": 2.0,
    "rejected_model": "m2",
}


@pytest.mark.parametrize(
    ("values", "row_format", "prompt", "answers"),
    [
        # 4.5 is the mean of 5 and 4 (overall_score is known to be wrong in places); the third has no score at all.
        (ULTRAFEEDBACK, "ultrafeedback", "Name a colour.", [("Red.", 4.5, "m1"), ("No.", 2.5, "m2")]),
        (DISTILABEL, "distilabel", "Name a colour.", [("Red.", 5, "m1"), ("No.", 1, "m2")]),
        (
            REWARDBENCH_2,
            "rewardbench",
            "What is 1 + 1?",
            [("2", 1, "chosen"), ("Two.", 1, "chosen"), ("3", 0, "rejected"), ("4", 0, "rejected")],
        ),
        (REWARDBENCH_1, "preference", "What is 1 + 1?", [("2", 1, "gpt"), ("3", 0, "alpaca")]),
        (DISTILABEL_DPO, "preference", "What is 1 + 1?", [("2", 5, "m1"), ("3", 2, "m2")]),
    ],
)
def test_a_format_is_detected_by_its_columns_and_read(values: Any, row_format: Format, prompt: str, answers: Any) -> None:
    assert format_of(SourceRow("x row 1", values)) == row_format
    assert read_prompt(values, row_format)[0].content == prompt
    judged = read_judged(values, row_format)
    assert judged.prompt == read_prompt(values, row_format)
    assert judged.answers == tuple(ScoredRow(*answer) for answer in answers)


def test_both_versions_of_rewardbench_go_by_its_name() -> None:
    assert read_judged(REWARDBENCH_1, "rewardbench") == read_judged(REWARDBENCH_1, "preference")


def test_lists_of_messages_are_no_rewardbench() -> None:
    turn = [{"role": "assistant", "content": "2"}]
    assert format_of(SourceRow("x", {"prompt": "1+1", "chosen": turn, "rejected": turn})) == "preference"


@pytest.mark.parametrize(
    ("values", "row_format", "reason"),
    [
        ({**DISTILABEL, "ratings": [5, 1]}, "distilabel", "generations and ratings differ in length"),
        ({**DISTILABEL, "ratings": [5, None, None]}, "distilabel", "fewer than two responses with a score"),
        ({**DISTILABEL, "ratings": None}, "distilabel", "missing ratings"),
        ({**ULTRAFEEDBACK, "completions": ["Red."]}, "ultrafeedback", "completions is not a list of objects"),
        ({**ULTRAFEEDBACK, "completions": []}, "ultrafeedback", "fewer than two responses with a score"),
        ({**REWARDBENCH_2, "chosen": ["2", " "]}, "rewardbench", "empty response"),
    ],
)
def test_what_does_not_fit_is_a_bad_row(values: Any, row_format: Format, reason: str) -> None:
    with pytest.raises(BadRow) as caught:
        read_judged(values, row_format)
    assert caught.value.reason == reason


def test_such_files_serve_as_prompts_and_as_judgments(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{**DISTILABEL, "instruction": f"Name colour {number}."} for number in range(20)]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    assert len(load_prompts(Source(path=str(path)), 0.5).all().records) == 20
    loaded = load_judgments(Source(path=str(path))).all()
    assert (len(loaded.records), loaded.dropped) == (20, {"duplicate row": 1})
    assert {ranking.split for ranking in loaded.records} == {"train"}
    assert [response.text for response in loaded.records[0].responses] == ["Red.", "No."]
