"""Votes measured against the judge, from the files of a run, with numbers by hand."""

import json
from pathlib import Path

import pytest

from aligndistill.evaluation.votes import Vote
from aligndistill.records import Comparison, Message, candidate_id, prompt_id
from aligndistill.reporting.vote_rows import vote_rows, votes_sentence
from aligndistill.runs.votes import measured_votes
from aligndistill.stages.scored_answers import ScoredAnswer
from aligndistill.store.jsonl import write_jsonl

QUESTIONS = [(Message(role="user", content=f"Question {number}?"),) for number in range(24)]
PROMPTS = [prompt_id(one) for one in QUESTIONS]


def key(prompt: str, text: str) -> str:
    return candidate_id(prompt, "answer", text)


def comparison(prompt: str, p: float) -> Comparison:
    """P(the student's answer is better), asked once."""
    return Comparison(
        prompt_id=prompt,
        first=key(prompt, "a long answer"),
        second=key(prompt, "short"),
        probability_first=p,
        outcome="first" if p > 0.5 else "second",
        judge="j",
    )


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """24 prompts with one student; the judge prefers its answer, which is the longer, on the first 18."""
    folder, evaluation = tmp_path / "runs/r", tmp_path / "runs/store/evaluation-0"
    (folder / "votes").mkdir(parents=True)
    evaluation.mkdir(parents=True)
    (folder / "artifacts.json").write_text(json.dumps({"evaluation": str(evaluation)}))
    scored = [
        ScoredAnswer(
            prompt_id=prompt, messages=messages, author=author, text=text, length_tokens=1, truth=None, reward=None, win=None
        )
        for prompt, messages in zip(PROMPTS, QUESTIONS, strict=True)
        for author, text in (("start", "short"), ("dpo", "a long answer"))
    ]
    write_jsonl(evaluation / "scored.jsonl", scored)
    write_jsonl(evaluation / "verdicts.jsonl", [comparison(prompt, 0.9 if n < 18 else 0.2) for n, prompt in enumerate(PROMPTS)])
    return folder


def vote(number: int, prefers_student: bool, queue: str = "random", **more: object) -> Vote:
    """The student's answer is on the left on even prompts."""
    prompt = PROMPTS[number]
    sides = [key(prompt, "a long answer"), key(prompt, "short")]
    left, right = sides if number % 2 == 0 else sides[::-1]
    first = {"random": 0, "filter": 100, "repeat": 200}[queue]
    values = {"id": f"{first + number:032x}", "time": 1.0, "prompt": prompt, "left": left, "right": right}
    choice = "left" if prefers_student == (number % 2 == 0) else "right"
    return Vote.model_validate({**values, "vote": choice, "queue": queue, "milliseconds": 700, **more})


def write(run: Path, votes: list[Vote], name: str = "ann") -> None:
    (run / f"votes/{name}.jsonl").write_text("".join(one.model_dump_json() + "\n" for one in votes))


def test_the_headline_is_of_random_votes_alone(run: Path) -> None:
    assert measured_votes(run) is None
    # 24 random votes: for the student on the first 21. The judge agrees on 18 (yes, yes) and on the last 3 (no, no): 21 of 24.
    votes = [vote(number, number < 21) for number in range(24)]
    # From a filter: four more, all against the judge. They would pull the agreement down to 21 of 28.
    filtered = [vote(number, False, "filter", left=vote(number, True).right, right=vote(number, True).left) for number in range(4)]
    write(run, votes)
    write(run, filtered, "bob")
    found = measured_votes(run)
    assert found is not None
    assert (found.votes, found.headline) == (28, 24)
    assert found.agreement is not None
    assert (found.agreement.mean, found.agreement.n) == (21 / 24, 24)
    assert found.agreement.low < 21 / 24 < found.agreement.high
    assert found.kappa is not None
    assert found.kappa.mean == pytest.approx((21 / 24 - 0.5) / 0.5)  # by chance half of the choices agree
    assert found.longer is not None
    assert found.longer.mean == 21 / 24  # the student's answer is the longer one
    assert found.win_rates["dpo"].mean == 21 / 24
    assert found.more_votes == 385 - 24


def test_a_person_beside_themselves_and_the_sentence_for_cards(run: Path) -> None:
    votes = [vote(number, number < 21) for number in range(24)]
    # Four pairs return swapped; three are decided as before.
    again = [
        vote(number, number != 3, "repeat", left=vote(number, True).right, right=vote(number, True).left) for number in range(4)
    ]
    again = [one.model_copy(update={"vote": {"left": "right", "right": "left"}[one.vote]}) for one in again]  # sides are swapped
    write(run, [*votes, *again])
    found = measured_votes(run)
    assert found is not None
    assert found.self_agreement is not None
    assert (found.self_agreement.mean, found.self_agreement.n) == (0.75, 4)
    sentence = votes_sentence(found)
    assert sentence.startswith("Judge and people choose the same answer in 88% [")
    assert "(24 votes on 24 prompts); kappa is 0.75 [" in sentence
    assert "a voter repeats the choice in 3 of 4; always taking the longer answer would agree in 88%" in sentence
    rows = {row.label: (row.text, row.n) for row in vote_rows(found)}
    assert rows["a voter repeats the choice, sides swapped"] == ("3 of 4", 4)
    assert rows["kappa of judge and person"][1] == 24


def test_votes_on_answers_that_are_not_there_any_more_count_as_votes_alone(run: Path) -> None:
    write(run, [vote(0, True, left="0" * 16, right="1" * 16)])
    found = measured_votes(run)
    assert found is not None
    assert (found.votes, found.agreement, found.win_rates) == (1, None, {})
    assert votes_sentence(found) == "1 blind votes were drawn at random; none is on a pair that the judge decided."
