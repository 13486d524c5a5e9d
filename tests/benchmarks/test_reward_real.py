import pytest

from aligndistill.records import Message, Ranking, Response
from aligndistill.stages.files import HeldOutPair
from benchmarks.reward_real import Pair, joined, rows_of


def ranking(prompt: str, *answers: tuple[str, float]) -> Ranking:
    responses = tuple(Response(text=text, score=score, candidate_id=text) for text, score in answers)
    return Ranking(prompt_id=prompt, split="held_out", messages=(Message(role="user", content=prompt),), responses=responses)


def test_pairs_get_the_lengths_of_their_answers_and_prompts_without_pairs_are_passed_over() -> None:
    rankings = [ranking("p", ("aaaa", 2.0), ("bb", 1.0), ("c", 1.0)), ranking("too long", ("x", 2.0), ("y", 1.0))]
    rankings.append(ranking("q", ("d", 3.0), ("eee", 0.0)))
    scored = [
        HeldOutPair(prompt_id=prompt, difference=difference, length_gap_tokens=0, length_term=0.5)
        for prompt, difference in [("p", 0.1), ("p", 0.2), ("q", 0.3)]
    ]
    assert list(joined(rankings, scored)) == [Pair("p", 0.1, 0.5, 4, 2), Pair("p", 0.2, 0.5, 4, 1), Pair("q", 0.3, 0.5, 1, 3)]


def test_every_order_on_every_subset() -> None:
    pairs = [Pair("p", 1.0, 0.5, 20, 10), Pair("p", -1.0, 2.0, 20, 10), Pair("q", 1.0, -2.0, 10, 11), Pair("q", -1.0, -0.5, 10, 30)]
    found = {(row.pairs, row.order): (row.count, row.right["mean"]) for row in rows_of(pairs)}
    assert found == {
        ("all", "longer wins"): (4, 0.5),
        ("all", "reward"): (4, 0.5),
        ("all", "reward and length term"): (4, 0.5),
        ("all", "the same, minus longer wins"): (4, 0.0),
        ("length ratio below 1.2", "longer wins"): (1, 0.0),
        ("length ratio below 1.2", "reward"): (1, 1.0),
        ("length ratio below 1.2", "reward and length term"): (1, 0.0),
        ("the shorter answer won", "longer wins"): (2, 0.0),
        ("the shorter answer won", "reward"): (2, 0.5),
        ("the shorter answer won", "reward and length term"): (2, 0.0),
        ("the longer answer won", "longer wins"): (2, 1.0),
        ("the longer answer won", "reward"): (2, 0.5),
        ("the longer answer won", "reward and length term"): (2, 1.0),
    }
    whole = next(row.right for row in rows_of(pairs) if (row.pairs, row.order) == ("the longer answer won", "longer wins"))
    assert whole == pytest.approx({"mean": 1.0, "low": 1.0, "high": 1.0, "n": 1})
