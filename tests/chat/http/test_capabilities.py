"""Servers that do what they are asked, that refuse it, and that ignore it silently."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aligndistill.chat.endpoint import EndpointChat
from aligndistill.chat.http.capabilities import Capabilities
from aligndistill.chat.protocol import Answered, Request, SamplingParams
from aligndistill.config.budget import Budget
from aligndistill.errors import ConfigError
from aligndistill.records import Message
from aligndistill.runs.servers import Endpoints, known_servers
from tests.chat.fault_server import Act, FaultServer, completion, error, send

SCHEMA = {"type": "object", "properties": {"winner": {"enum": ["A", "B"]}}, "required": ["winner"]}


def say(text: str) -> tuple[Message, ...]:
    return (Message(role="user", content=text),)


def readable(_: int, text: str) -> bool:
    try:
        return json.loads(text).get("winner") in ("A", "B")
    except (ValueError, AttributeError):
        return text in ("A", "B")


JUDGING = SamplingParams(0.0, 16, 0, SCHEMA, readable)


def keeps_to_schema(body: dict[str, Any]) -> Act:
    form = body.get("response_format", {})
    if form.get("type") == "json_schema":
        properties = form["json_schema"]["schema"]["properties"]
        return completion(json.dumps({name: one["enum"][0] for name, one in properties.items()}))
    return completion("A")


def keeps_to_json(body: dict[str, Any]) -> Act:
    match body.get("response_format", {}).get("type"):
        case "json_schema":
            return error(400, "response_format is invalid")
        case "json_object":
            return completion('{"winner": "B"}')
    return completion("A")


def ignores(_: dict[str, Any]) -> Act:
    return completion("A")


def refuses(body: dict[str, Any]) -> Act:
    return send(422, {"detail": "Unexpected fields"}) if "response_format" in body else completion("A")


def repeats_any_object(body: dict[str, Any]) -> Act:
    """Gives JSON whatever the schema says."""
    return completion('{"answer": "yes"}') if "response_format" in body else completion("A")


@pytest.mark.parametrize(
    ("server_kind", "found", "asked_for", "text"),
    [
        (keeps_to_schema, "json_schema", "json_schema", '{"winner": "A"}'),
        (keeps_to_json, "json_object", "json_object", '{"winner": "B"}'),
        (ignores, "text", None, "A"),
        (refuses, "text", None, "A"),
        (repeats_any_object, "json_object", "json_object", "A"),
    ],
)
def test_the_form_of_answers_is_found_by_answers(
    server_kind: Callable[[dict[str, Any]], Act], found: str, asked_for: str | None, text: str
) -> None:
    capabilities = Capabilities()
    with FaultServer(lambda body, _: server_kind(body)) as server:
        chat = EndpointChat(server.config(), capabilities)
        answers = list(chat.answer([Request(say(f"Which? As JSON. {n}")) for n in range(3)], JUDGING))
        probes = [body for body in server.bodies if not body["messages"][0]["content"].startswith("Which? As JSON")]
        forms = {
            body.get("response_format", {}).get("type")
            for body in server.bodies
            if body not in probes and len(body["messages"]) == 1
        }
        assert capabilities.found.answer_format == found
        assert forms == {asked_for}
        if server_kind is not repeats_any_object:
            assert {answered.reply.text for answered in answers} == {text}
        count = len(probes)
        list(chat.answer([Request(say("Which? As JSON. again"))], JUDGING))
        assert (
            len([body for body in server.bodies if not body["messages"][0]["content"].startswith("Which? As JSON")]) == count <= 2
        )


def test_json_without_a_schema_is_asked_for_only_where_the_words_say_so() -> None:
    with FaultServer(lambda body, _: keeps_to_json(body)) as server:
        list(EndpointChat(server.config()).answer([Request(say("Which? A or B."))], JUDGING))
    assert "response_format" not in server.bodies[-1]


def test_a_request_that_is_refused_for_its_form_is_asked_for_text() -> None:
    def behave(body: dict[str, Any], _: int) -> Act:
        refused = "response_format" in body and body["messages"][0]["content"] == "hard"
        return error(400, "schema too complex") if refused else keeps_to_schema(body)

    with FaultServer(behave) as server:
        answers = list(EndpointChat(server.config()).answer([Request(say("easy")), Request(say("hard"))], JUDGING))
    assert {answered.request: answered.reply.text for answered in answers} == {0: '{"winner": "A"}', 1: "A"}
    assert not any(answered.reply.problem for answered in answers)


# ------------------------------------------------------------------------------------------------------- several answers


def answer_samples(act: Callable[[dict[str, Any]], Act], rounds: int = 2) -> tuple[list[Answered], list[int]]:
    with FaultServer(lambda body, _: act(body)) as server:
        chat = EndpointChat(server.config(concurrency=1))
        answers = [one for _ in range(rounds) for one in chat.answer([Request(say("q"), (0, 1, 2, 3))], SamplingParams(1.0, 8, 5))]
        return answers, [body.get("n", 1) for body in server.bodies]


def choices(number: int) -> Act:
    listed = [{"index": n, "message": {"content": f"text {n}"}, "finish_reason": "stop"} for n in range(number)]
    return send(200, {"choices": listed, "usage": {"prompt_tokens": 10, "completion_tokens": 4}})


def test_a_server_that_honours_n_is_asked_once_for_all_samples() -> None:
    answers, asked = answer_samples(lambda body: choices(body.get("n", 1)))
    assert asked == [4, 4]
    assert [(one.sample, one.reply.text) for one in answers] == [(n, f"text {n}") for n in range(4)] * 2
    assert sum(one.reply.usage.calls for one in answers) == 2
    assert sum(one.reply.usage.prompt_tokens for one in answers) == 20


@pytest.mark.parametrize(
    ("act", "asked"),
    [
        (lambda body: choices(1), [4, 1, 1, 1, 1, 1, 1, 1]),  # ignored
        (lambda body: choices(2), [4, 1, 1, 1, 1, 1, 1]),  # too few
        (lambda body: choices(9), [4, 1, 1, 1, 1]),  # too many: a server that does as it likes
        (lambda body: error(400, "n must be 1") if body.get("n", 1) > 1 else choices(1), [4, *[1] * 8]),
        (lambda body: send(422, {"detail": "n"}) if "n" in body else choices(1), [4, *[1] * 8]),
    ],
    ids=["ignored", "too few", "too many", "refused", "unknown field"],
)
def test_a_server_that_ignores_n_is_asked_for_what_is_missing(act: Callable[[dict[str, Any]], Act], asked: list[int]) -> None:
    answers, sent = answer_samples(act)
    assert sent == asked
    assert [one.sample for one in answers] == [0, 1, 2, 3] * 2
    assert not any(one.reply.problem for one in answers)


def test_a_server_that_honours_n_now_and_then() -> None:
    counts = iter([4, 4, 3, 1, 1, 1, 1, 1, 1, 1])
    answers, asked = answer_samples(lambda body: choices(next(counts)), rounds=3)
    assert [one.sample for one in answers] == [0, 1, 2, 3] * 3
    assert asked == [4, 4, 4, 1]


# -------------------------------------------------------------------------------------------------------- asking again


def test_what_cannot_be_read_is_asked_for_once_more_with_the_reason() -> None:
    def behave(body: dict[str, Any], _: int) -> Act:
        return completion("B") if len(body["messages"]) == 3 else completion("Hard to say; both have merits.")

    with FaultServer(behave) as server:
        (answered,) = EndpointChat(server.config(), Capabilities()).answer(
            [Request(say("which"))], SamplingParams(0.0, 8, 0, None, readable)
        )
    assert answered.reply.text == "B"
    assert answered.reply.usage.calls == 2
    first, second, third = server.bodies[-1]["messages"]
    assert (first["content"], second["content"]) == ("which", "Hard to say; both have merits.")
    assert "No verdict could be read" in third["content"]


@pytest.mark.parametrize(
    ("second", "text"),
    [
        (completion("Still hard."), "first"),
        (completion("B", finish="length"), "first"),
        (completion(None), "first"),
        (error(400, "too long"), "first"),
    ],
)
def test_a_second_reply_that_is_no_better_leaves_the_first(second: Act, text: str) -> None:
    with FaultServer(lambda body, _: second if len(body["messages"]) == 3 else completion("first")) as server:
        (answered,) = EndpointChat(server.config()).answer([Request(say("which"))], SamplingParams(0.0, 8, 0, None, readable))
    assert answered.reply.text == text
    assert answered.reply.usage.calls == 2
    assert len(server.bodies) == 2


def test_a_reply_that_was_cut_off_is_asked_for_again() -> None:
    def behave(body: dict[str, Any], _: int) -> Act:
        return completion("B") if len(body["messages"]) == 3 else completion("A", finish="length")

    with FaultServer(behave) as server:
        (answered,) = EndpointChat(server.config()).answer([Request(say("which"))], SamplingParams(0.0, 8, 0, None, readable))
    assert (answered.reply.text, answered.reply.finish) == ("B", "stop")
    assert "cut off" in server.bodies[-1]["messages"][2]["content"]


# --------------------------------------------------------------------------------------------------------------- context


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    from tests.judges.tiny_judge import _tokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    _tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(("context", "sent"), [(None, True), (10_000, True), (40, False), (1, False)])
def test_a_prompt_over_the_context_is_not_sent(tokenizer: str, context: int | None, sent: bool) -> None:
    """`transformers serve` answers one with nonsense and status 200."""
    with FaultServer(lambda body, _: completion("A")) as server:
        chat = EndpointChat(server.config(tokenizer=tokenizer, context_tokens=context))
        requests = [Request(say("the house " * 30)), Request(say("old"))]
        answers = {one.request: one.reply for one in chat.answer(requests, SamplingParams(0.0, 8))}
        assert ("" if sent else "not sent") in answers[0].problem
        assert bool(answers[0].text) == sent
        assert len(server.bodies) == (2 if sent else 1 if context == 40 else 0)
        for labelled in chat.label_logprobs([say("the house " * 30)], ("A", "B")):
            assert labelled.logprobs is None


def test_the_edge_of_the_context_is_counted_by_the_tokenizer(tokenizer: str) -> None:
    from transformers import AutoTokenizer

    turns = [{"role": "user", "content": "the old house"}]
    length = len(AutoTokenizer.from_pretrained(tokenizer).apply_chat_template(turns, add_generation_prompt=True, return_dict=False))
    for context, sent in ((length + 8, 1), (length + 7, 0)):
        with FaultServer(lambda body, _: completion("A")) as server:
            list(
                EndpointChat(server.config(tokenizer=tokenizer, context_tokens=context)).answer(
                    [Request(say("the old house"))], SamplingParams(0.0, 8)
                )
            )
        assert len(server.bodies) == sent


def test_a_tokenizer_that_is_not_there_is_named(tmp_path: Path) -> None:
    with FaultServer(lambda body, _: completion("A")) as server, pytest.raises(ConfigError, match="nowhere"):
        EndpointChat(server.config(tokenizer=str(tmp_path / "nowhere")))


# -------------------------------------------------------------------------------------------------------------- memory


def test_capabilities_are_saved_with_the_run(tmp_path: Path) -> None:
    with FaultServer(lambda body, _: keeps_to_schema(body)) as server:
        for _ in range(2):
            chat = Endpoints(tmp_path, Budget()).open(server.config())
            list(chat.label_logprobs([say("x")], ("A", "B")))
            list(chat.answer([Request(say("which"))], JUDGING))
        assert len([body for body in server.bodies if "logprobs" in body]) == 2  # the first question of each process
        assert len([body for body in server.bodies if "larger" in str(body.get("response_format"))]) == 1
        (found,) = known_servers(tmp_path).values()
    assert (found.answers, found.top_logprobs, found.answer_format) == (True, 0, "json_schema")


def test_damaged_capabilities_are_tested_again(tmp_path: Path) -> None:
    (tmp_path / "servers.json").write_text("{broken")
    with FaultServer(lambda body, _: keeps_to_schema(body)) as server:
        list(Endpoints(tmp_path, Budget()).open(server.config()).answer([Request(say("which"))], JUDGING))
    assert len(known_servers(tmp_path)) == 1
