"""Requests that a healthy server rejects, whatever their number and order, cost no other request anything. Real sockets."""

from pathlib import Path
from typing import Any

import pytest

from aligndistill.chat.protocol import SamplingParams
from aligndistill.config.judges import Pairwise
from aligndistill.config.run import Runtime
from aligndistill.judges.protocol import Task
from aligndistill.records import Prompt, is_unparsed, prompt_id
from aligndistill.stages.context import StageContext
from aligndistill.stages.sampling import SamplingJob, sample_answers
from aligndistill.stages.verdicts import judged_tasks
from tests.chat.fault_server import Act, FaultServer, completion, error, send
from tests.judges.tasks import task
from tests.tiny_models import user

TOO_LONG = error(400, "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens")


def context_in(folder: Path) -> StageContext:
    return StageContext(name="stage", folder=folder, caches=folder, runtime=Runtime(), unreadable_limit=0.2)


def prompts_of(*texts: str) -> dict[str, Prompt]:
    conversations = [user(text) for text in texts]
    return {prompt_id(one): Prompt(id=prompt_id(one), messages=one, source="x", split="train") for one in conversations}


@pytest.mark.parametrize("honours_n", [True, False])
def test_prompts_that_the_server_rejects_are_counted_by_every_run_and_the_others_answered(honours_n: bool, tmp_path: Path) -> None:
    samples, rejected = 8, {0, 20, 39}

    def behave(body: dict[str, Any], _: int) -> Act:
        if body["messages"][0]["content"].startswith("forbidden"):
            return error(400, "The prompt triggered the content management policy")
        answers = body.get("n", 1) if honours_n else 1
        return send(200, {"choices": [{"message": {"content": "fine"}, "finish_reason": "stop"}] * answers})

    prompts = prompts_of(*(f"{'forbidden' if number in rejected else 'question'} {number}" for number in range(40)))
    job = SamplingJob(prompts, samples, 999, SamplingParams(1.0, 16))
    with FaultServer(behave) as server:
        for run in range(2):
            context = context_in(tmp_path)
            found = sample_answers(context, "teacher", server.config(), job, context.scratch / "sampled.jsonl")
            assert (len(found.samples), found.refused) == (37 * samples, 3 * samples), run
        several = [body["n"] for body in server.bodies if "n" in body]
    if honours_n:  # a prompt that is rejected with `n`, and without it, says nothing of `n`
        assert several == [samples] * (40 + 3)


@pytest.mark.parametrize("logprobs", [True, False])
def test_questions_that_the_server_rejects_have_no_verdict_and_the_others_have(logprobs: bool, tmp_path: Path) -> None:
    too_long = {3, 6}

    def behave(body: dict[str, Any], _: int) -> Act:
        if "LONG" in body["messages"][0]["content"]:
            return TOO_LONG
        return completion("A", probabilities={"A": 0.7, "B": 0.3} if logprobs and body.get("logprobs") else None)

    made = [task(f"{'LONG' if number in too_long else 'why'} {number}", *"abcd") for number in range(10)]
    tasks: dict[str, Task] = {one.prompt_id: one for one in made}
    with FaultServer(behave) as server:
        for run in range(2):
            judged = judged_tasks(
                context_in(tmp_path), Pairwise(kind="pairwise"), {"teacher": server.config()}, tasks, 0, "verdicts"
            )
            unread = [one.prompt_id for one in judged.values() if all(map(is_unparsed, one.verdicts))]
            readable = [one.prompt_id for one in judged.values() if not any(map(is_unparsed, one.verdicts))]
            assert (len(unread), len(readable)) == (2, 8), run
