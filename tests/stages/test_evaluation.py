"""Evaluations of scripted models by a scripted judge, by hand."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from aligndistill.chat.protocol import Answered, Reply, Request, SamplingParams
from aligndistill.chat.scripted import ScriptedChat
from aligndistill.config.run import AnswerSampling, Evaluation
from aligndistill.evaluation.length_control import controlled_win_rate
from aligndistill.records import Comparison, Usage
from aligndistill.stages import answers, evaluation
from aligndistill.stages.context import StageContext
from aligndistill.stages.files import read_verdicts
from aligndistill.stages.scored_answers import ScoredAnswer, beside_start
from aligndistill.store.jsonl import read_jsonl
from tests.stages.labelled import MODELS, context_in, inputs_of, judge_of, with_teacher

FIRST, SECOND = "What is question 0?", "What is question 5?"
"""The held-out prompts."""


class FilteringServer(ScriptedChat):
    """Writes answers of given numbers of words, by question and sample; those of 0 words are filtered."""

    def __init__(self, words: Mapping[str, Sequence[int]]) -> None:
        super().__init__(lambda messages, sample: " ".join(["word"] * words[messages[-1].content][sample]))

    def answer(self, requests: Sequence[Request], sampling: SamplingParams) -> Iterator[Answered]:
        for one in super().answer(requests, sampling):
            yield one if one.reply.text else replace(one, reply=Reply("", "stop", Usage(), "the content filter cut the reply"))


def answered(context: StageContext, author: str, words: Mapping[str, Sequence[int]]) -> Path:
    folder = context.folder / author
    folder.mkdir()
    made = answers.make(
        replace(context, folder=folder, open_endpoint=lambda _: FilteringServer(words)),
        name=author,
        author=MODELS["judge"],
        sampling=AnswerSampling(None, 3, 1.0, 100, 50),
        prompts=inputs_of(context)["prompts"],
        seed=0,
    )
    refused = sum(list(of_prompt).count(0) for of_prompt in words.values())
    assert made.dropped == ({"refused": refused} if refused else {})
    return folder


def longer(prompt: str, first: str, second: str) -> str:
    return "[[A]]" if len(first) > len(second) else "[[B]]"


@pytest.mark.parametrize(
    ("start", "student", "pairs", "alone"),
    [
        ([2, 4, 6], [0, 3, 5], [(3, 2), (5, 4)], 0),  # by the numbers of the samples it would lose twice
        ([2, 4, 6], [3, 0, 5], [(3, 2), (5, 4)], 0),
        ([0, 4, 6], [8, 3, 5], [(8, 4), (3, 6)], 1),  # the last one has no opponent
        ([0, 4, 6], [8, 0, 5], [(8, 4), (5, 6)], 0),
    ],
)
def test_where_a_sample_was_filtered_the_others_are_compared(
    start: list[int], student: list[int], pairs: list[tuple[int, int]], alone: int, tmp_path: Path
) -> None:
    """The pairs that the judge is asked about are those that are measured, and no verdict is missing."""
    context = with_teacher(context_in(tmp_path, prompts=6), longer)
    folders = {
        "start": answered(context, "start", {FIRST: start, SECOND: [2, 4, 6]}),
        "student": answered(context, "student", {FIRST: student, SECOND: [1, 3, 7]}),
        "teacher": answered(context, "teacher", {FIRST: start, SECOND: [2, 4, 6]}),  # the same texts: no more questions
    }
    evaluation.make(
        context,
        settings=Evaluation(judge=judge_of(tmp_path), samples_per_prompt=3, against_teacher=True),
        models=MODELS,
        prompts=inputs_of(context)["prompts"],
        answers=folders,
        reward_model=None,
        seed=0,
        students={"student": "student"},
    )
    assert sum(isinstance(one, Comparison) for one in read_verdicts(tmp_path)) == 2 * (2 + 3)  # each pair in both orders

    wins = [float(ours > theirs) for ours, theirs in pairs]
    scored = list(read_jsonl(tmp_path / "scored.jsonl", ScoredAnswer))
    of_student = {
        text: [one for one in scored if (one.author, one.messages[-1].content) == ("student", text)] for text in (FIRST, SECOND)
    }
    assert [one.win for one in of_student[FIRST]] == [*wins, *[None] * alone]
    assert [one.win for one in of_student[SECOND]] == [0.0, 0.0, 1.0]

    metrics = json.loads((tmp_path / "evaluation.json").read_text())["authors"]["student"]
    assert metrics["win_rate"]["mean"] == pytest.approx((sum(wins) / 2 + 1 / 3) / 2)
    assert metrics["win_rate"]["n"] == 2
    assert metrics["win_rate_teacher"] == metrics["win_rate"]
    by_hand = controlled_win_rate([*wins, 0, 0, 1], [*(a - b for a, b in pairs), -1, -1, 1], ["0", "0", "5", "5", "5"])
    assert by_hand.win_rate is not None
    assert metrics["win_rate_lc"]["mean"] == pytest.approx(by_hand.win_rate.mean)

    beside = beside_start([*of_student[FIRST], *of_student[SECOND]], [one for one in scored if one.author == "start"], judged=True)
    assert (beside.wins, beside.losses, beside.unreadable) == (sum(wins) + 1, 5 - sum(wins) - 1, 0)
