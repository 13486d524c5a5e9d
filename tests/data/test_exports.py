"""What is written for other tools comes back as it was: the same answers, in the same order, with the same scores."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from aligndistill.config.data import Source
from aligndistill.data.benchmark import read_benchmark_row
from aligndistill.data.exports import distilabel_row, rankings_row, rewardbench_rows, ultrafeedback_row
from aligndistill.data.loading import load_judgments
from aligndistill.records import Comparison, Grade, Message, Ranking, Response, candidate_id, prompt_id

ONE_TURN = (Message(role="user", content="Name a colour."),)
TURNS = (
    Message(role="system", content="Be brief."),
    Message(role="user", content="Hello."),
    Message(role="assistant", content="Hi!"),
    Message(role="user", content="Name a colour."),
)


def ranking(messages: tuple[Message, ...], *answers: tuple[str, float]) -> Ranking:
    identity = prompt_id(messages)
    responses = tuple(
        Response(text=text, score=score, author=f"m{n}", candidate_id=candidate_id(identity, f"m{n}", text))
        for n, (text, score) in enumerate(answers)
    )
    return Ranking(prompt_id=identity, split="held_out", messages=messages, responses=responses)


RANKING = ranking(ONE_TURN, ("Red.", 1 / 3), ('A "blue"\none\u2028', 1 / 3), ("\u05d0\u05d1", -2 / 3 - 1e-9))
"""Two that are equally good; scores that only all their digits tell."""
LONGER = ranking(TURNS, ("Red.", 0.1), ("No.", -0.1))


def read_back(rows: Iterable[Any], folder: Path) -> list[Ranking]:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_judgments(Source(path=str(path))).all().records


def answers(one: Ranking) -> list[tuple[str, float, str]]:
    return [(response.text, response.score, response.author) for response in one.responses]


@pytest.mark.parametrize("write", [lambda one: distilabel_row(one, []), lambda one: ultrafeedback_row(one, []), rankings_row])
def test_a_ranking_comes_back_whole(write: Callable[[Ranking], Any], tmp_path: Path) -> None:
    (back,) = read_back([write(RANKING)], tmp_path)
    assert back.prompt_id == RANKING.prompt_id
    assert answers(back) == answers(RANKING)


@pytest.mark.parametrize("write", [rankings_row, lambda one: next(rewardbench_rows(one))])
def test_turns_come_back_as_turns(write: Callable[[Ranking], Any], tmp_path: Path) -> None:
    (back,) = read_back([write(LONGER)], tmp_path)
    assert back.messages == TURNS
    assert answers(back) == answers(LONGER)


def test_pairs_come_back_with_their_scores_and_ties_are_none(tmp_path: Path) -> None:
    rows = list(rewardbench_rows(RANKING))
    assert [answers(back) for back in read_back(rows, tmp_path)] == [
        [answers(RANKING)[0], answers(RANKING)[2]],
        [answers(RANKING)[1], answers(RANKING)[2]],
    ]
    assert len({row["id"] for row in rows}) == 2
    for row, chosen in zip(rows, ("Red.", 'A "blue"\none\u2028'), strict=True):
        as_benchmark = read_benchmark_row(row)
        assert (as_benchmark.subset, as_benchmark.chosen, as_benchmark.rejected) == ("held_out", (chosen,), ("\u05d0\u05d1",))
        assert as_benchmark.pair


def test_ultrafeedback_has_the_data_sets_columns_and_the_replies_on_each_answer() -> None:
    first, second, _ = (response.candidate_id for response in RANKING.responses)
    verdicts = [
        Grade(prompt_id=RANKING.prompt_id, candidate=first, value=9, judge="rubric", reply="Lovely: 9"),
        Grade(prompt_id=RANKING.prompt_id, candidate="of a canary", value=1, judge="rubric", reply="Bad: 1"),
        Comparison(
            prompt_id=RANKING.prompt_id,
            first=first,
            second=second,
            probability_first=None,
            outcome="first",
            judge="pairwise",
            reply="A",
        ),
    ]
    row = ultrafeedback_row(RANKING, verdicts)
    assert row.keys() >= {"source", "instruction", "models", "completions", "correct_answers", "incorrect_answers"}
    assert row["models"] == ["m0", "m1", "m2"]
    one, two, _ = row["completions"]
    assert one == {
        "model": "m0",
        "response": "Red.",
        "annotations": {"overall": {"Rating": str(1 / 3), "Rationale": "Lovely: 9"}},
        "overall_score": 1 / 3,
        "fine-grained_score": 1 / 3,
        "critique": "Lovely: 9",
    }
    assert two["critique"] == ""
