"""Questions that a server does not answer: counted, told apart from unreadable replies, and asked again. Real sockets."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tenacity

from aligndistill.chat.http import retries
from aligndistill.config.audit import Audit, AuditProbes
from aligndistill.config.judges import Judge, Panel
from aligndistill.errors import JudgeError
from aligndistill.evaluation.audit import AuditMetrics
from aligndistill.judges.parsing import request_failed
from aligndistill.records import Comparison, is_unparsed
from aligndistill.stages.context import StageContext
from aligndistill.stages.files import read_verdicts
from aligndistill.stages.verdicts import judged_tasks
from tests.chat.fault_server import Act, FaultServer, completion, error
from tests.judges.tasks import task
from tests.stages.labelled import audit_of, context_in, judge_of, label, shown

PROBES = AuditProbes(canaries=0, repeats=0)
PROMPTS = 10
QUESTIONS = PROMPTS * 6


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "_backoff", tenacity.wait_fixed(0.01))


def questions(server: FaultServer) -> list[str]:
    return [text for text in (body["messages"][0]["content"] for body in server.bodies if "logprobs" not in body) if "<<" in text]


def judged(context: StageContext, server: FaultServer) -> list[Comparison]:
    label(context, judge_of(context.folder), {"judge": server.config(max_retries=1, concurrency=2)}, PROBES)
    return [verdict for verdict in read_verdicts(context.folder) if isinstance(verdict, Comparison)]


def unanswered(verdicts: list[Comparison]) -> list[Comparison]:
    return [verdict for verdict in verdicts if request_failed(verdict)]


def test_a_question_without_an_answer_is_counted_and_asked_again_by_the_next_run(tmp_path: Path) -> None:
    sick = True

    def behave(body: dict[str, Any], _: int) -> Act:
        prompt, first, second = shown(body["messages"][0]["content"])
        if not second:
            return completion("hello")
        if sick and prompt == "What is question 7?" and first < second:
            return error(500, "this one crashes me")
        return completion("[[A]]" if len(first) >= len(second) else "[[B]]")

    context = context_in(tmp_path / "one", PROMPTS)
    with FaultServer(behave) as server:
        verdicts = judged(context, server)
        assert len(verdicts) == QUESTIONS
        lost = unanswered(verdicts)
        assert len(lost) == 3  # of question 7's three pairs, each in one of its orders
        assert all(verdict.outcome == "unparsed" and "this one crashes me" in (verdict.reply or "") for verdict in lost)
        assert [verdict for verdict in verdicts if verdict.outcome == "unparsed"] == lost
        audit_of(context, Audit(probes=PROBES))
        metrics = AuditMetrics.model_validate(json.loads((context.folder / "audit.json").read_text())["metrics"])
        assert metrics.unparsed.mean == pytest.approx(3 / QUESTIONS)

        sick = False
        before = len(questions(server))
        other = context_in(tmp_path / "two", PROMPTS)  # another run of the same store
        again = judged(replace(other, caches=context.caches), server)
        assert len(questions(server)) - before == len(set(questions(server)[before:])) == 3
    assert not unanswered(again)
    assert [verdict.outcome for verdict in again if verdict.outcome == "unparsed"] == []


def test_a_run_that_was_stopped_asks_again_what_failed_and_not_what_was_unreadable(tmp_path: Path) -> None:
    """Two questions fail by themselves, one cannot be read, then the server dies."""
    dying = True

    def behave(body: dict[str, Any], _: int) -> Act:
        prompt, first, second = shown(body["messages"][0]["content"])
        if dying and len(set(questions(server))) > QUESTIONS / 2:
            return error(503)
        if not second:
            return completion("hello")
        if prompt == "What is question 1?" and first < second:
            return completion("Well, who can say?")
        if dying and prompt == "What is question 2?" and first < second:
            return error(503)
        return completion("[[A]]" if len(first) >= len(second) else "[[B]]")

    context = context_in(tmp_path, PROMPTS)
    with FaultServer(behave) as server:
        with pytest.raises(JudgeError, match="the server is running"):
            judged(context, server)
        dying = False
        before = list(questions(server))
        verdicts = judged(context, server)
        again = questions(server)[len(before) :]
    assert len(verdicts) == QUESTIONS
    assert not unanswered(verdicts)
    assert sum(verdict.outcome == "unparsed" for verdict in verdicts) == 3
    of_two = {text for text in before if shown(text)[0] == "What is question 2?" and shown(text)[1] < shown(text)[2]}
    assert len(of_two) == 3
    assert of_two <= set(again)
    assert not [text for text in again if shown(text)[0] == "What is question 1?"]


def test_what_went_unanswered_is_found_among_samples_and_in_a_panel() -> None:
    def compared(reply: str | None, *members: Comparison) -> Comparison:
        return Comparison(
            prompt_id="p",
            first="a",
            second="b",
            probability_first=None,
            outcome="unparsed",
            judge="j",
            reply=reply,
            members=members,
        )

    failed = compared("[reply 1] A\n[reply 2] [no verdict: no reply after 6 attempts: HTTP 503]")
    assert request_failed(failed)
    assert request_failed(compared(None, compared("A"), failed))
    assert not request_failed(compared(None, compared("A"), compared(None)))
    assert not request_failed(compared('[no verdict: cut off at max_new_tokens] "A"'))
    assert not request_failed(compared("there was no reply after it"))


def panel_of(folder: Path) -> Panel:
    members = {model: {"judge": {**judge_of(folder).model_dump(), "model": model}} for model in ("judge", "other")}
    return Panel.model_validate({"kind": "panel", "members": members})


@pytest.mark.parametrize("judge_in", [judge_of, panel_of])
def test_what_could_be_read_before_an_interruption_counts_for_what_could_not(
    judge_in: Callable[[Path], Judge], tmp_path: Path
) -> None:
    """5 % of the replies cannot be read. A resumed run asks for them first, and stops only where too many of all cannot be read."""
    unreadable, tasks = set(range(5, 85, 10)), 100
    credit = 180 if judge_in is judge_of else 380

    def behave(body: dict[str, Any], number: int) -> Act:
        if number >= credit and not refilled:
            return error(401, "no credit")
        prompt, _, _ = shown(body["messages"][0]["content"])
        return completion("I cannot help with this." if prompt.startswith("odd") else "A")

    made = [task(f"{'odd' if number in unreadable else 'even'} {number}", "x", "y") for number in range(tasks)]
    by_id = {one.prompt_id: one for one in made}
    refilled = False
    context = replace(context_in(tmp_path), unreadable_limit=0.2)
    with FaultServer(behave) as server:
        models = {"judge": server.config(), "other": server.config(template_arguments={"style": "brief"})}
        arguments = judge_in(tmp_path), models, by_id, 0, "verdicts"
        with pytest.raises(JudgeError, match="no credit"):
            judged_tasks(context, *arguments)
        refilled = True
        for run in range(2):
            judged = judged_tasks(context, *arguments)
            unread = [one.prompt_id for one in judged.values() if all(map(is_unparsed, one.verdicts))]
            assert (len(judged), len(unread)) == (tasks, len(unreadable)), run


def test_a_resumed_run_of_a_judge_that_never_could_be_read_is_stopped_as_early(tmp_path: Path) -> None:
    by_id = {one.prompt_id: one for one in (task(f"why {number}", "x", "y") for number in range(20))}
    context = replace(context_in(tmp_path), unreadable_limit=0.2)
    with FaultServer(lambda *_: completion("I cannot help with this.")) as server:
        for _ in range(2):
            with pytest.raises(JudgeError, match="none of the judge's first 8 verdicts"):
                judged_tasks(context, judge_of(tmp_path), {"judge": server.config()}, by_id, 0, "verdicts")
