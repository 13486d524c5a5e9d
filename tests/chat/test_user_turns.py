"""User turns that a model writes itself, here and on a server."""

from typing import Any

import pytest

from aligndistill.chat.endpoint import EndpointChat
from aligndistill.chat.protocol import Request, SamplingParams
from aligndistill.chat.user_turns import LocalUserTurns, ServedUserTurns
from aligndistill.config.models import EndpointModel
from aligndistill.errors import DataError, JudgeError
from aligndistill.models.conversation import Conversation
from aligndistill.models.load import wrap_language_model
from aligndistill.models.sampling import SampleRequest, sample
from tests.chat.fault_server import Act, FaultServer, error, send
from tests.models.chat_families import FAMILIES, tokenizer_of
from tests.tiny_models import tiny_language_model, tiny_model, tiny_tokenizer, user

SAMPLING = SamplingParams(temperature=1.0, max_new_tokens=8, seed=3)
REQUESTS = [Request((), (number,)) for number in range(5)]


def turns(model: LocalUserTurns) -> dict[int, str]:
    return {REQUESTS[one.request].samples[0]: one.reply.text for one in model.answer(REQUESTS, SAMPLING)}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prompt_begins_with_what_stands_before_a_users_turn(family: str) -> None:
    conversation = Conversation(tokenizer_of(family), "chat")
    before, prompt = conversation.user_turn_ids, conversation.prompt_ids(user("Why?"))
    assert prompt[: len(before)] == before
    assert "Why" not in conversation.tokenizer.decode(before)
    assert "Why" in conversation.tokenizer.decode(prompt[len(before) : len(before) + 2])


def test_a_transcript_begins_with_the_humans_name() -> None:
    conversation = Conversation(tiny_tokenizer(), "transcript")
    assert conversation.tokenizer.decode(conversation.user_turn_ids) == "\n\nHuman:"
    ids = conversation.tokenizer(" Why?\n\nAssistant: So.").input_ids
    assert conversation.user_turn_text(ids) == "Why?"
    with pytest.raises(DataError, match="plain has no turns"):
        _ = Conversation(tiny_tokenizer(), "plain").user_turn_ids


def test_a_model_here_continues_the_template_alone() -> None:
    lm = tiny_language_model()
    whole = turns(LocalUserTurns(lm, "tiny", 8))
    assert turns(LocalUserTurns(lm, "tiny", 2)) == whole  # the batch decides nothing
    assert len(set(whole.values())) == len(REQUESTS)
    request = SampleRequest(lm.conversation.user_turn_ids, "user turn", (3,))
    ((alone,),) = sample(lm, [request], temperature=1.0, max_new_tokens=8, seed=3)
    assert whole[3] == lm.conversation.user_turn_text(alone.ids)


def test_a_turn_that_does_not_end_is_cut_off() -> None:
    model = tiny_model()
    model.generation_config.eos_token_id = [1, *range(200, 260)]
    lm = wrap_language_model(model, tiny_tokenizer(), "chat")
    replies = [one.reply for one in LocalUserTurns(lm, "tiny", 8).answer([Request((), tuple(range(20)))], SAMPLING)]
    assert {reply.finish for reply in replies} == {"stop", "length"}
    assert all(reply.finish == "stop" or reply.usage.completion_tokens == 8 for reply in replies)


def served(server: FaultServer, max_retries: int = 0) -> ServedUserTurns:
    config = EndpointModel(kind="endpoint", base_url=server.base_url, name="m", max_retries=max_retries)
    return ServedUserTurns(EndpointChat(config).server, Conversation(tokenizer_of("qwen3"), "chat"), config.identity)


def test_a_server_gets_token_ids_and_continues_them() -> None:
    def behave(body: dict[str, Any], number: int) -> Act:
        choice = {"index": 0, "text": f"Question {body['seed'] % 1000}?\n", "finish_reason": "stop" if number else "length"}
        return send(200, {"choices": [choice], "usage": {"prompt_tokens": 4, "completion_tokens": 3}})

    with FaultServer(behave) as server:
        replies = [one.reply for one in served(server).answer(REQUESTS, SAMPLING)]
        conversation = Conversation(tokenizer_of("qwen3"), "chat")
        for body in server.bodies:
            assert body["prompt"] == conversation.user_turn_ids
            assert (body["model"], body["max_tokens"], body["temperature"], body["stop"]) == ("m", 8, 1.0, ["<|im_end|>"])
    assert len({reply.text for reply in replies}) == len(REQUESTS)  # each sample has its own seed
    assert sorted(reply.finish for reply in replies) == ["length", "stop", "stop", "stop", "stop"]
    assert {(reply.usage.prompt_tokens, reply.usage.completion_tokens) for reply in replies} == {(4, 3)}


@pytest.mark.parametrize("reason", ["abort", "error", "insufficient_system_resource"])
def test_a_continuation_that_the_server_broke_off_is_asked_for_again(reason: str) -> None:
    def behave(body: dict[str, Any], number: int) -> Act:
        text, finish = ("Quest", reason) if number == 0 else ("Question?", "model_length")
        return send(200, {"choices": [{"index": 0, "text": text, "finish_reason": finish}], "usage": {"prompt_tokens": 4}})

    with FaultServer(behave) as server:
        replies = [one.reply for one in served(server, max_retries=1).answer(REQUESTS, SAMPLING)]
        assert len(server.bodies) == len(replies) + 1
    assert {(reply.text, reply.finish, reply.problem) for reply in replies} == {("Question?", "length", "")}


def test_a_server_of_chats_alone_is_an_error_that_says_so() -> None:
    def behave(body: dict[str, Any], number: int) -> Act:
        return error(400, "this server answers chats alone")

    message = r"Magpie needs a server that continues text \(/v1/completions\)"
    with FaultServer(behave) as server, pytest.raises(JudgeError, match=message):
        list(served(server).answer(REQUESTS, SAMPLING))
