"""The scripted teacher of the quickstart world, asked by the package's own requests."""

from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from aligndistill.chat.function import FunctionChat
from aligndistill.chat.protocol import Request, SamplingParams
from aligndistill.config.elicitation import Curate, Evolve, Expand
from aligndistill.config.judges import Pairwise
from aligndistill.config.models import FunctionModel
from aligndistill.config.run import Runtime
from aligndistill.elicitation.labelling import label_request
from aligndistill.elicitation.revision import critique_request, revision_request
from aligndistill.records import Comparison, Demonstration, Message, Prompt
from aligndistill.stages import elicitation
from aligndistill.stages.context import StageContext
from aligndistill.stages.files import PROMPTS
from aligndistill.stages.opening import open_judge
from aligndistill.store.jsonl import read_jsonl, write_jsonl
from examples.quickstart.__main__ import quickstart_files
from examples.quickstart.truth import truth
from examples.quickstart.world import FACTS, Flaw, flawed_answer, good_answers, phrasings
from tests.elicitation.prompts import prompt
from tests.judges.tasks import task

TEACHER = FunctionModel(kind="function", function="examples.quickstart.teacher:answer")
CAPITAL = "What is the capital of France?"
GOOD = "Happy to help! The capital of France is Paris."


def said(messages: tuple[Message, ...], sample: int = 0) -> str:
    (answered,) = FunctionChat(TEACHER).answer([Request(messages, (sample,))], SamplingParams(1.0, max_new_tokens=1024))
    return answered.reply.text


def user(text: str) -> tuple[Message, ...]:
    return (Message(role="user", content=text),)


@pytest.mark.parametrize(
    "step",
    [
        Expand(name="x", kind="expand", target=60, max_similarity=1),
        Evolve(name="x", kind="evolve", max_similarity=1),
        Curate.model_validate({"name": "x", "kind": "curate", "topics": {"generate": 5}, "per_topic": 5, "max_similarity": 1}),
    ],
    ids=lambda step: step.kind,
)
def test_what_is_kept_is_a_question_of_the_world_and_some_is_not_kept(step: Any, tmp_path: Path) -> None:
    """The checker raises for a prompt of another world."""
    rows = quickstart_files()["prompts.jsonl"][:60]
    prompts = [prompt(row["prompt"]) for row in rows]
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    write_jsonl(tmp_path / "in" / PROMPTS, prompts)
    context = StageContext("prompts-x", tmp_path / "out", tmp_path / "caches", Runtime())
    given: dict[str, Any] = {"models": {"teacher": TEACHER}, "prompts": tmp_path / "in", "seed": 0, "prices": {}}
    result = elicitation.make(context, settings=step, **given)
    new = [one for one in read_jsonl(tmp_path / "out" / PROMPTS, Prompt) if one.lineage is not None]
    assert len(new) == result.counts["new"] > 20
    for one in new:
        truth(one.messages[-1].content, ["Paris."])
    reasons = {
        "expand": {"too short", "is a training prompt"},
        "evolve": {"says the same as the old prompt"},
        "curate": set(),
    }
    assert reasons[step.kind] <= set(result.dropped)


def test_examples_make_its_answers_polite_and_complete() -> None:
    examples = [Demonstration(prompt_id=prompt(CAPITAL).id, split="train", messages=user(CAPITAL), response=GOOD)]
    questions = [row["prompt"] for row in quickstart_files()["prompts.jsonl"][:200]]
    shown = [truth(one, [said(label_request(user(one), "", examples, "none"))])[0] for one in questions]
    alone = [truth(one, [said(label_request(user(one), "", [], "none"))])[0] for one in questions]
    assert mean(shown) == 1.0
    assert set(alone) == {0.5}  # right, and neither polite nor complete


@pytest.mark.parametrize(
    ("principle", "answer", "revised"),
    [
        ("The answer should be correct.", "Thank you for asking. That city is Rome.", 1.0),
        ("The answer should be correct.", "That city is Rome.", 0.7),
        ("The answer should be kind to the reader.", "You are so lazy. That city is Paris. Now go away.", 1.0),
        ("The answer should be kind to the reader.", "That city is Rome.", 0.25),
        ("The answer should be a whole sentence.", "paris", 0.7),
        ("The answer should be correct.", "paris", 0.5),
    ],
)
def test_a_revision_has_what_its_principle_asks_for_and_nothing_else(principle: str, answer: str, revised: float) -> None:
    asked = critique_request(CAPITAL, answer, principle, seed=0)
    assert truth(CAPITAL, [said(revision_request(asked, said(asked)))]) == [revised]


def test_its_verdicts_agree_with_the_checker_that_it_does_not_use(tmp_path: Path) -> None:
    """Good answers against those with a flaw, in both orders."""
    flaws: tuple[Flaw, ...] = ("wrong", "rude", "curt")
    tasks = [
        task(phrasings(fact)[0], good_answers(fact)[0], flawed_answer(fact, flaw, fact.asked))
        for fact in FACTS[::5]
        for flaw in flaws
    ]
    context = StageContext("verdicts", tmp_path, tmp_path, Runtime())
    judge = open_judge(context, Pairwise(kind="pairwise", model="teacher"), {"teacher": TEACHER}, seed=0)
    outcomes = [verdict for judged in judge.judge(tasks) for verdict in judged.verdicts]
    assert len(outcomes) == 2 * len(tasks)
    good = {one.candidates[0].id for one in tasks}
    for verdict in outcomes:
        assert isinstance(verdict, Comparison)
        assert verdict.outcome == ("first" if verdict.first in good else "second")
