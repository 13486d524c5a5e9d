"""A batch from its export to the verdicts: joined by id, partial, out of order, in several files."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aligndistill.chat.batch import BatchChat, read_answers
from aligndistill.chat.endpoint import EndpointChat
from aligndistill.chat.protocol import Request, SamplingParams
from aligndistill.commands.batch_files import import_answers, open_questions
from aligndistill.config.audit import Audit, AuditProbes
from aligndistill.config.judges import Panel
from aligndistill.config.models import EndpointModel
from aligndistill.errors import ConfigError
from aligndistill.records import Comparison, Message, content_hash, prompt_id
from aligndistill.stages.context import StageContext
from aligndistill.stages.files import read_verdicts
from tests.stages.labelled import MODELS, SERVER, context_in, judge_of, label, labelled, labelling_of, shown, with_teacher

PROBES = AuditProbes(canaries=5, repeats=2)
ENDPOINT = EndpointModel.model_validate(SERVER)
QUESTIONS = 10 * 6 + 5 * 2 + 2 * 6
"""Labels, canaries, and what is asked again."""


def export(context: StageContext, logprobs: bool = False) -> list[dict[str, Any]]:
    requests = open_questions(labelling_of(context, judge_of(context.folder), MODELS, PROBES), logprobs)
    return [json.loads(json.dumps(request)) for request in requests]


def import_(context: StageContext, rows: list[dict[str, Any]]) -> tuple[int, int, int, int]:
    found = import_answers(labelling_of(context, judge_of(context.folder), MODELS, PROBES), read_answers(rows))
    return found.read, found.failed, found.unknown, found.missing


def answered(request: dict[str, Any], reply: str = "", **choice: Any) -> dict[str, Any]:
    """What a provider gives back; it takes the longer answer."""
    _, first, second = shown(request["body"]["messages"][0]["content"])
    text = reply or ("[[A]]" if len(first) >= len(second) else "[[B]]")
    body = {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop", **choice}],
        "usage": {"prompt_tokens": 20, "completion_tokens": 1},
    }
    return {
        "id": "batch_req_1",
        "custom_id": request["custom_id"],
        "response": {"status_code": 200, "request_id": "r", "body": body},
        "error": None,
    }


def test_requests_have_the_openai_form(tmp_path: Path) -> None:
    requests = export(context_in(tmp_path, prompts=10), logprobs=True)
    assert len(requests) == len({request["custom_id"] for request in requests}) == QUESTIONS
    for request in requests:
        assert request.keys() == {"custom_id", "method", "url", "body"}
        assert (request["method"], request["url"]) == ("POST", "/v1/chat/completions")
        assert request["body"]["model"] == "teacher"
        assert [message["role"] for message in request["body"]["messages"]] == ["user"]
        assert (request["body"]["temperature"], request["body"]["max_tokens"]) == (0.0, 64)
        assert (request["body"]["logprobs"], request["body"]["top_logprobs"]) == (True, 20)
    assert "logprobs" not in export(context_in(tmp_path / "plain", prompts=10))[0]["body"]


def test_a_batch_comes_back_in_parts_and_only_the_rest_is_asked_again(tmp_path: Path) -> None:
    context = context_in(tmp_path, prompts=10)
    requests = export(context)
    failed = [
        {"custom_id": requests[0]["custom_id"], "response": None, "error": {"code": "batch_expired", "message": "too late"}},
        {"custom_id": requests[1]["custom_id"], "response": {"status_code": 500, "body": {"error": {}}}, "error": None},
        {"custom_id": requests[2]["custom_id"], "response": {"status_code": 200, "body": {"no": "choices"}}, "error": None},
    ]
    unreadable = answered(requests[3], "Well, who can say?")
    stranger = {**answered(requests[4]), "custom_id": "of another batch"}
    some = [answered(request) for request in reversed(requests[4:50])]
    assert import_(context, [*failed, unreadable, stranger, *some]) == (47, 3, 1, QUESTIONS - 46)

    left = export(context)
    assert {request["custom_id"] for request in left} == {request["custom_id"] for request in [*requests[:4], *requests[50:]]}
    last = left.pop()
    assert import_(context, [answered(request) for request in left]) == (len(left), 0, 0, 1)

    asked = []

    def live(prompt: str, first: str, second: str) -> str:
        asked.append((prompt, first, second))
        return "[[A]]" if len(first) >= len(second) else "[[B]]"

    judge = judge_of(context.folder)
    scripted = with_teacher(context, live)
    assert scripted.open_endpoint is not None
    scripted.open_endpoint(ENDPOINT).identity = BatchChat(ENDPOINT, 0, False, {}).identity
    label(scripted, judge, MODELS, PROBES)
    assert asked == [shown(last["body"]["messages"][0]["content"])]

    one_by_one = labelled(context_in(tmp_path / "live", prompts=10), live, Audit(probes=PROBES))
    expected = [verdict.model_dump(exclude={"usage"}) for verdict in read_verdicts(one_by_one.folder)]
    assert [verdict.model_dump(exclude={"usage"}) for verdict in read_verdicts(context.folder)] == expected


def test_log_probabilities_in_a_batch_become_soft_verdicts(tmp_path: Path) -> None:
    context = context_in(tmp_path, prompts=10)
    top = [{"token": "A", "logprob": -0.2231435513}, {"token": "B", "logprob": -1.6094379124}]  # 0.8 and 0.2
    logprobs = {"content": [{"token": "A", "logprob": -0.22, "top_logprobs": top}]}
    rows = [answered(request, "A", logprobs=logprobs) for request in export(context, logprobs=True)]
    assert import_(context, rows) == (QUESTIONS, 0, 0, 0)
    judge = judge_of(context.folder)
    scripted = with_teacher(context, lambda *_: pytest.fail("asked again"))
    assert scripted.open_endpoint is not None
    scripted.open_endpoint(ENDPOINT).identity = BatchChat(ENDPOINT, 0, False, {}).identity
    label(scripted, judge, MODELS, PROBES)
    for verdict in read_verdicts(context.folder):
        assert verdict.kind == "comparison"
        assert verdict.probability_first == pytest.approx(0.8)


def test_a_batch_is_kept_under_the_servers_own_name() -> None:
    assert BatchChat(ENDPOINT, 0, False, {}).identity == EndpointChat(ENDPOINT).identity


def test_two_settings_of_one_model_are_two_members_with_requests_of_their_own(tmp_path: Path) -> None:
    context = context_in(tmp_path, prompts=10)
    judge = judge_of(context.folder).model_dump()
    panel = Panel.model_validate(
        {"kind": "panel", "members": {name: {"judge": {**judge, "model": name}} for name in ("quick", "slow")}}
    )
    models = {
        "quick": EndpointModel.model_validate({**SERVER, "thinking": "off"}),
        "slow": EndpointModel.model_validate({**SERVER, "thinking": "on"}),
    }
    labelling = labelling_of(context, panel, models, PROBES)
    requests = open_questions(labelling, logprobs=False)
    assert len({request["custom_id"] for request in requests}) == len(requests) == 2 * QUESTIONS

    def of_mode(request: dict[str, Any]) -> str:
        return "[[A]]" if request["body"]["max_tokens"] == 64 else "[[B]]"  # `slow` has room for thoughts

    found = import_answers(labelling, read_answers(answered(request, of_mode(request)) for request in requests))
    assert (found.read, found.missing) == (2 * QUESTIONS, 0)
    label(replace(context, open_endpoint=lambda model: BatchChat(model, 0, False, {})), panel, models, PROBES)
    replies = {
        (member.judge, member.reply)
        for verdict in read_verdicts(context.folder)
        if isinstance(verdict, Comparison)
        for member in verdict.members
    }
    assert replies == {("quick", "[[A]]"), ("slow", "[[B]]")}


def test_the_id_of_a_model_without_settings_is_that_of_earlier_versions() -> None:
    asked = (Message(role="user", content="A or B?"),)
    chat = BatchChat(ENDPOINT, 3, False, {})
    assert not list(chat.answer([Request(asked)], SamplingParams(0.0, 64)))
    assert list(chat.missing) == [content_hash("teacher", prompt_id(asked), "0", "3")]


def test_a_local_judge_has_no_batches(tmp_path: Path) -> None:
    context = context_in(tmp_path, prompts=10)
    with pytest.raises(ConfigError, match="behind a server"):
        open_questions(labelling_of(context, judge_of(context.folder), {}, PROBES), logprobs=False)
