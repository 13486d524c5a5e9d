"""Answers to held-out prompts with their scores, as `scored.jsonl` and as `model_outputs/AUTHOR.json`."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aligndistill.evaluation.against_start import AgainstStart, ScoredText, against_start
from aligndistill.evaluation.wins import PromptVerdicts
from aligndistill.records import Answer, Message, Record, candidate_id, plain_prompt


class ScoredAnswer(Record):
    """One answer with its scores."""

    prompt_id: str
    messages: tuple[Message, ...]
    author: str
    text: str
    length_tokens: int
    truth: float | None
    reward: float | None
    win: float | None


@dataclass(frozen=True)
class Scores:
    """Truth and reward by answer id, verdicts by prompt id."""

    truths: Mapping[str, float]
    rewards: Mapping[str, float]
    verdicts: Mapping[str, PromptVerdicts]


def answer_id(answer: Answer) -> str:
    """The id of an answer: answers with the same text are one, regardless of the author."""
    return answer_key(answer.prompt_id, answer.text)


def answer_key(prompt: str, text: str) -> str:
    """The same by a prompt's id and a text."""
    return candidate_id(prompt, "answer", text)


def beside_start(student: Iterable[ScoredAnswer], start: Iterable[ScoredAnswer], judged: bool) -> AgainstStart:
    """A student's answers beside the start's; see `against_start`."""
    ours, theirs = (
        [ScoredText(one.prompt_id, one.length_tokens, one.truth, one.reward, one.win) for one in answers]
        for answers in (student, start)
    )
    return against_start(ours, theirs, judged)


def scored_answers(
    answers: Mapping[str, Mapping[str, Sequence[Answer]]], messages: Mapping[str, tuple[Message, ...]], scores: Scores
) -> list[ScoredAnswer]:
    """Every answer with its scores."""
    rows = []
    for of_author in answers.values():
        for prompt, of_prompt in of_author.items():
            starts = answers.get("start", {}).get(prompt, ())
            for sample, answer in enumerate(of_prompt):
                identity = answer_id(answer)
                against = answer_id(starts[sample]) if sample < len(starts) else None
                verdicts = scores.verdicts.get(prompt)
                rows.append(
                    ScoredAnswer(
                        prompt_id=prompt,
                        messages=messages[prompt],
                        author=answer.author,
                        text=answer.text,
                        length_tokens=answer.length_tokens,
                        truth=scores.truths.get(identity),
                        reward=scores.rewards.get(identity),
                        win=verdicts.win_probability(identity, against) if verdicts and against else None,
                    )
                )
    return rows


def write_model_outputs(
    folder: Path, answers: Mapping[str, Mapping[str, Sequence[Answer]]], messages: Mapping[str, tuple[Message, ...]]
) -> None:
    """Write each author's first answers in the format of `alpaca_eval --model_outputs`."""
    folder.mkdir(exist_ok=True)
    for author, of_author in answers.items():
        rows = [
            {
                "instruction": plain_prompt(messages[prompt]),
                "output": of_prompt[0].text,
                "generator": author,
                "dataset": "held_out",
                "datasplit": "eval",
            }
            for prompt, of_prompt in of_author.items()
        ]
        (folder / f"{author}.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
