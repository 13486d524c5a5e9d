"""Answers in the shapes of the servers that people run; `transformers serve` itself is tried in tests/judges."""

import math
from typing import Any

import pytest

from aligndistill.chat.endpoint import EndpointChat
from aligndistill.chat.protocol import Request, SamplingParams
from aligndistill.records import Message, Usage
from tests.chat.fault_server import Act, FaultServer, send

QUESTION = (Message(role="user", content="Which?"),)


def top(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}


def logprobs() -> dict[str, Any]:
    listed = [top("A", math.log(0.6)), top(" B", math.log(0.3))]
    return {"content": [{**listed[0], "top_logprobs": listed}]}


def vllm(body: dict[str, Any]) -> dict[str, Any]:
    message = {
        **{"role": "assistant", "content": "A", "refusal": None, "annotations": None, "audio": None, "function_call": None},
        **{"tool_calls": [], "reasoning_content": None},
    }
    return {
        **{"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": body["model"], "service_tier": None},
        "choices": [
            {
                **{"index": 0, "message": message, "finish_reason": "stop", "stop_reason": None, "token_ids": None},
                "logprobs": logprobs() if body.get("logprobs") else None,
            }
        ],
        "usage": {"prompt_tokens": 11, "total_tokens": 13, "completion_tokens": 2, "prompt_tokens_details": None},
        "prompt_logprobs": None,
        "kv_transfer_params": None,
    }


def llama_cpp(body: dict[str, Any]) -> dict[str, Any]:
    choice: dict[str, Any] = {"finish_reason": "stop", "index": 0, "message": {"role": "assistant", "content": "A"}}
    if body.get("logprobs"):
        choice["logprobs"] = {"content": [{"id": 32, **one} for one in logprobs()["content"]]}
    return {
        **{"choices": [choice], "created": 1, "model": "gpt-3.5-turbo", "system_fingerprint": "b1-x", "object": "chat.completion"},
        "usage": {"completion_tokens": 2, "prompt_tokens": 11, "total_tokens": 13},
        "id": "chatcmpl-x",
        "timings": {"prompt_n": 11, "prompt_ms": 3.2, "predicted_n": 2, "predicted_per_second": 100.0},
    }


def ollama(body: dict[str, Any]) -> dict[str, Any]:
    choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": "A"}, "finish_reason": "stop"}
    return {
        **{
            "id": "chatcmpl-7",
            "object": "chat.completion",
            "created": 1,
            "model": body["model"],
            "system_fingerprint": "fp_ollama",
        },
        "choices": [choice],
        "usage": {"prompt_tokens": 11, "completion_tokens": 2, "total_tokens": 13},
    }


STYLES = {"vLLM": vllm, "llama.cpp": llama_cpp, "Ollama": ollama}


@pytest.mark.parametrize("style", STYLES)
def test_answers_and_label_logprobs_in_every_style(style: str) -> None:
    def behave(body: dict[str, Any], _: int) -> Act:
        return send(200, STYLES[style](body))

    with FaultServer(behave) as server:
        chat = EndpointChat(server.config())
        (labelled,) = chat.label_logprobs([QUESTION], ("A", "B"))
        (answered,) = chat.answer([Request(QUESTION)], SamplingParams(0.0, 4))
    assert (answered.reply.text, answered.reply.finish, answered.reply.problem) == ("A", "stop", "")
    assert answered.reply.usage == Usage(calls=1, prompt_tokens=11, completion_tokens=2)
    expected = None if style == "Ollama" else pytest.approx((math.log(0.6), math.log(0.3)))
    assert labelled.logprobs == expected
    known = {"model", "messages", "temperature", "max_tokens", "seed", "logprobs", "top_logprobs"}
    assert all(body.keys() <= known for body in server.bodies)
