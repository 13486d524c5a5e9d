"""What the first questions find out about servers whose models think."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from aligndistill.chat.endpoint import EndpointChat
from aligndistill.chat.http.capabilities import Capabilities
from aligndistill.chat.protocol import CUT_IN_THOUGHTS, Request, SamplingParams
from aligndistill.errors import JudgeError
from aligndistill.records import Message
from tests.chat.thinking_server import STYLES, Style, ThinkingServer

WHICH = (Message(role="user", content="Which is better, A or B?"),)
MOST_REQUESTS = 9 - 2
"""Two more are the real question in both orders."""


def looked(server: ThinkingServer, **settings: Any) -> tuple[EndpointChat, Capabilities]:
    capabilities = Capabilities()
    chat = EndpointChat(server.config(max_retries=0, **settings), capabilities, looks=True)
    chat.look()
    return chat, capabilities


@pytest.fixture(params=STYLES)
def server(request: pytest.FixtureRequest) -> Iterator[ThinkingServer]:
    with ThinkingServer(dataclasses.replace(STYLES[request.param])) as running:
        yield running


def test_thinking_is_switched_off_in_every_style_that_has_a_switch(server: ThinkingServer) -> None:
    chat, capabilities = looked(server)
    chat.find_answer_format()
    assert len(server.bodies) <= MOST_REQUESTS
    assert capabilities.found.thinks is True
    assert capabilities.found.switch == server.style.stopped_by[0]
    (answered,) = chat.answer([Request(WHICH)], SamplingParams(0.0, 64))
    assert (answered.reply.text, answered.reply.thoughts, answered.reply.problem) == ("A", "", "")
    (labelled,) = chat.label_logprobs([WHICH], ("A", "B"))
    assert (labelled.logprobs is not None) == server.style.logprobs


def test_thinking_that_stays_on_gets_more_tokens_and_no_request_for_log_probabilities(server: ThinkingServer) -> None:
    chat, capabilities = looked(server, thinking="on")
    assert (capabilities.found.thinks, capabilities.found.switch) == (True, None)
    asked = len(server.bodies)
    (labelled,) = chat.label_logprobs([WHICH], ("A", "B"))
    assert labelled.logprobs is None
    assert len(server.bodies) == asked
    (answered,) = chat.answer([Request(WHICH)], SamplingParams(0.0, 64))
    assert (answered.reply.text, answered.reply.problem) == ("A", "")
    assert server.bodies[-1]["max_tokens"] == 64 + 4096
    assert bool(answered.reply.thoughts) == (server.style.reports != "none")


def test_without_looking_a_reply_that_ends_in_its_thoughts_is_asked_again_once(server: ThinkingServer) -> None:
    chat = EndpointChat(server.config(max_retries=0))
    (answered,) = chat.answer([Request(WHICH)], SamplingParams(0.0, 64))
    if server.style.reports == "none":  # nothing tells that it thought
        assert answered.reply.problem or answered.reply.finish == "length"
        return
    assert [body["max_tokens"] for body in server.bodies] == [64, 64 + 4096]
    assert (answered.reply.text, answered.reply.problem) == ("A", "")
    assert answered.reply.usage.calls == 2


def test_log_probabilities_of_thoughts_are_never_those_of_the_answer(server: ThinkingServer) -> None:
    (labelled,) = EndpointChat(server.config(max_retries=0)).label_logprobs([WHICH], ("A", "B"))
    assert labelled.logprobs is None


def test_a_limit_that_is_too_small_for_the_thoughts_is_said() -> None:
    with ThinkingServer(Style()) as server:
        chat, _ = looked(server, thinking="on", thinking_tokens=100)
        (answered,) = chat.answer([Request(WHICH)], SamplingParams(0.0, 64))
    assert answered.reply.problem == f"{CUT_IN_THOUGHTS} (164 tokens)"
    assert answered.reply.text == ""


def test_off_where_nothing_switches_it_off_is_an_error_that_names_the_switches() -> None:
    with ThinkingServer(Style(stopped_by=())) as server, pytest.raises(JudgeError) as caught:
        looked(server, thinking="off")
    assert len(server.bodies) == 5
    assert "the server ignores every known switch (chat_template_kwargs, reasoning_effort, thinking, prefill)" in str(caught.value)
    assert "thinking: on" in str(caught.value)


def test_auto_where_nothing_switches_it_off_leaves_it_on() -> None:
    with ThinkingServer(Style(stopped_by=())) as server:
        chat, capabilities = looked(server)
        (answered,) = chat.answer([Request(WHICH)], SamplingParams(0.0, 64))
    assert (capabilities.found.thinks, capabilities.found.switch) == (True, None)
    assert (answered.reply.text, server.bodies[-1]["max_tokens"]) == ("A", 64 + 4096)


def test_on_switches_a_model_on_that_does_not_think_by_default() -> None:
    with ThinkingServer(Style(thinks=False, started_by=("reasoning_effort",))) as server:
        chat, capabilities = looked(server, thinking="on")
        (answered,) = chat.answer([Request(WHICH)], SamplingParams(0.0, 64))
    assert (capabilities.found.thinks, capabilities.found.switch) == (False, "reasoning_effort")
    assert server.bodies[-1]["reasoning_effort"] == "medium"
    assert answered.reply.thoughts


def test_a_model_that_does_not_think_costs_one_request() -> None:
    with ThinkingServer(Style(thinks=False)) as server:
        chat, capabilities = looked(server)
        chat.look()
    assert len(server.bodies) == 1
    assert capabilities.found.top_logprobs == 20
    assert capabilities.found.label_mass == pytest.approx(0.9)


def test_a_server_that_was_started_again_otherwise_is_noticed() -> None:
    with ThinkingServer(Style(thinks=False)) as server:
        _, capabilities = looked(server)
        capabilities.confirmed = False  # the next process, which reads what was found
        EndpointChat(server.config(), capabilities, looks=True).look()
        assert len(server.bodies) == 2
        server.style = Style()
        capabilities.confirmed = False
        EndpointChat(server.config(), capabilities, looks=True).look()
    assert (capabilities.found.thinks, capabilities.found.switch) == (True, "chat_template_kwargs")


def test_an_answer_in_the_requested_form_that_is_reported_as_thoughts_is_the_answer() -> None:
    schema = {"type": "object", "properties": {"winner": {"type": "string", "enum": ["A", "B", "tie"]}}, "required": ["winner"]}
    with ThinkingServer(Style(schema_in_thoughts=True, keeps_schema=True, stopped_by=())) as server:
        capabilities = Capabilities()
        capabilities.update(answer_format="json_schema")
        chat = EndpointChat(server.config(thinking="on"), capabilities)
        (answered,) = chat.answer([Request(WHICH)], SamplingParams(0.0, 64, answer_schema=schema))
    assert (answered.reply.text, answered.reply.thoughts) == ('{"winner": "A"}', "")


@pytest.mark.parametrize(
    ("refused", "reason", "advice"),
    [
        (
            "max_tokens",
            "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.",
            "limit_field: max_completion_tokens",
        ),
        ("seed", "Unknown name 'seed': Cannot find field.", "omit: [seed]"),
        ("temperature", "Unsupported value: 'temperature' does not support 0.0", "omit: [temperature]"),
    ],
)
def test_a_field_that_is_refused_is_named_with_what_to_write(refused: str, reason: str, advice: str) -> None:
    with ThinkingServer(Style(thinks=False, refuses={refused: reason})) as server:
        with pytest.raises(JudgeError, match="rejected the request") as caught:
            looked(server)
        assert advice in str(caught.value)
        settings = {"limit_field": "max_completion_tokens"} if refused == "max_tokens" else {"omit": [refused]}
        _, capabilities = looked(server, **settings)
    assert capabilities.found.thinks is False


def test_further_fields_reach_the_server_and_are_part_of_the_identity() -> None:
    with ThinkingServer(Style(thinks=False)) as server:
        settings = {"template_arguments": {"language": "de"}, "body": {"top_p": 0.5, "temperature": 0.25}}
        chat, _ = looked(server, **settings)
        list(chat.answer([Request(WHICH)], SamplingParams(1.0, 64)))
    sent = server.bodies[-1]
    assert (sent["chat_template_kwargs"], sent["top_p"], sent["temperature"]) == ({"language": "de"}, 0.5, 0.25)
    assert chat.identity != EndpointChat(server.config()).identity
    assert EndpointChat(server.config(thinking_tokens=10)).identity == EndpointChat(server.config()).identity
