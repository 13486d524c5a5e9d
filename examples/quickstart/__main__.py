"""`python -m examples.quickstart OUT_DIR` writes prompts and demonstrations, the same bytes every time."""

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import get_args

from examples.quickstart.world import FACTS, Fact, Flaw, Kind, flawed_answer, good_answers, number, phrasings, pick

PROMPTS_PER_KIND = 200
DEMONSTRATIONS_PER_KIND = 550

FLAW_PERCENT: dict[Flaw, int] = {"wrong": 14, "rude": 14, "curt": 6, "unfinished": 8, "unwilling": 4, "hedged": 4}
"""How many of the student's demonstrations have which flaw; the others are good."""

Row = dict[str, str]


@dataclass(frozen=True)
class Question:
    """A prompt and what it is about."""

    prompt: str
    fact: Fact


def quickstart_files() -> dict[str, list[Row]]:
    """The rows of each file, by file name. Every fact is in every file; no phrasing is both a prompt and a demonstration."""
    asked, demonstrated = [], []
    for kind in get_args(Kind):
        questions = _questions(kind)
        asked += questions[:PROMPTS_PER_KIND]
        demonstrated += questions[PROMPTS_PER_KIND:][:DEMONSTRATIONS_PER_KIND]
    return {
        "prompts.jsonl": [{"prompt": question.prompt} for question in _mixed(asked)],
        "teacher_demonstrations.jsonl": [
            {"prompt": question.prompt, "completion": pick(good_answers(question.fact), question.prompt, "teacher")}
            for question in _mixed(demonstrated)
        ],
        "student_demonstrations.jsonl": [
            {"prompt": question.prompt, "completion": _student_answer(question.prompt, question.fact)}
            for question in _mixed(demonstrated)
        ],
    }


def _questions(kind: Kind) -> list[Question]:
    """All questions of a kind: one of each fact, then another of each, and so on."""
    per_fact = [
        [Question(prompt, fact) for prompt in sorted(phrasings(fact), key=lambda prompt: number(prompt, "order"))]
        for fact in FACTS
        if fact.kind == kind
    ]
    return list(chain.from_iterable(zip(*per_fact, strict=True)))


def _mixed(questions: list[Question]) -> list[Question]:
    return sorted(questions, key=lambda question: number(question.prompt, "place"))


def _student_answer(prompt: str, fact: Fact) -> str:
    """A good answer to some of the prompts, a flawed one to the rest."""
    percentile = number(prompt, "quality") % 100
    for flaw, percent in FLAW_PERCENT.items():
        if percentile < percent:
            return flawed_answer(fact, flaw, prompt)
        percentile -= percent
    return pick(good_answers(fact), prompt, "student")


def write_jsonl(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as UTF-8, one JSON object a line."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8", newline="\n")


def main(arguments: list[str]) -> int:
    """Write the files into the folder named by the only argument."""
    if len(arguments) != 1:
        print("usage: python -m examples.quickstart OUT_DIR", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in quickstart_files().items():
        write_jsonl(folder / name, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
