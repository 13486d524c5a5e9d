"""Servers of models that think, each in the way of a real one (vLLM, SGLang, llama.cpp, Ollama, vendors), on a real socket."""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.chat.fault_server import Act, FaultServer, error, send

THOUGHT_TOKENS = 300
THOUGHTS = "Okay, the user wants me to decide. " + "Let me think about it again. " * 40


@dataclass
class Style:
    """How a server behaves.

    Attributes:
        thinks: without a switch.
        reports: the field with the thoughts; `content` leaves them in the text between markers, `none` does not return them.
        stopped_by, started_by: the switches that it knows.
        empty: the content of a reply without an answer.
        keeps_schema: whether answers have the requested form.
        schema_in_thoughts: a known defect: the answer in the requested form is reported as thoughts.
        refuses: fields that are answered with an error.
        logprobs: whether it gives any.
        mass: the probability of the label that it answers with, as the first token.
    """

    thinks: bool = True
    reports: str = "reasoning_content"
    stopped_by: tuple[str, ...] = ("chat_template_kwargs",)
    started_by: tuple[str, ...] = ()
    empty: str | None = None
    keeps_schema: bool = False
    schema_in_thoughts: bool = False
    refuses: Mapping[str, str] = field(default_factory=dict)
    logprobs: bool = True
    mass: float = 0.9
    answer: Callable[[str], str] = lambda question: "A"


STYLES = {
    "vLLM with a parser": Style(reports="reasoning"),
    "vLLM without a parser": Style(reports="content"),
    "SGLang": Style(reports="reasoning_content", stopped_by=("chat_template_kwargs", "reasoning_effort")),
    "llama.cpp": Style(
        reports="reasoning_content", empty="", stopped_by=("chat_template_kwargs", "reasoning_effort"), keeps_schema=True
    ),
    "Ollama": Style(reports="reasoning", empty="", stopped_by=("reasoning_effort",)),
    "DeepSeek": Style(reports="reasoning_content", stopped_by=("thinking",), logprobs=False),
    "a vendor that refuses unknown fields": Style(
        reports="none",
        stopped_by=("reasoning_effort",),
        refuses={"chat_template_kwargs": "Unrecognized request argument supplied: chat_template_kwargs"},
    ),
    "a template without a switch": Style(reports="content", stopped_by=("prefill",)),
}


class ThinkingServer(FaultServer):
    """Answers in one style.

    Attributes:
        style: may be changed while it runs, as if it had been started again with other options.
    """

    def __init__(self, style: Style) -> None:
        self.style = style
        super().__init__(lambda body, number: self._reply(body))

    def _reply(self, body: dict[str, Any]) -> Act:
        style = self.style
        for name, reason in style.refuses.items():
            if name in body:
                return error(400, reason)
        question = next(turn["content"] for turn in body["messages"] if turn["role"] == "user")
        answer, in_form = style.answer(question), style.keeps_schema and "response_format" in body
        if in_form:
            answer = _in_form(body["response_format"], answer)
        limit = body.get("max_tokens", body.get("max_completion_tokens", 10_000))
        if not self._thinks(body):
            return self._completion(body, answer, None, "stop", len(answer.split()), thought=False)
        if style.schema_in_thoughts and "response_format" in body:
            return self._completion(body, None, _in_form(body["response_format"], answer), "stop", 10, thought=True)
        if limit < THOUGHT_TOKENS:
            return self._completion(body, None, THOUGHTS[: 4 * limit], "length", limit, thought=True)
        return self._completion(body, answer, THOUGHTS, "stop", THOUGHT_TOKENS + 2, thought=True)

    def _thinks(self, body: Mapping[str, Any]) -> bool:
        arguments = body.get("chat_template_kwargs", {})
        sent = {
            "chat_template_kwargs": arguments.get("enable_thinking", arguments.get("thinking")),
            "reasoning_effort": {"none": False, None: None}.get(body.get("reasoning_effort"), True),
            "thinking": {"disabled": False, "enabled": True}.get(body.get("thinking", {}).get("type")),
            "prefill": False if body.get("continue_final_message") else None,
        }
        if any(sent[name] is False for name in self.style.stopped_by):
            return False
        return self.style.thinks or any(sent[name] is True for name in self.style.started_by)

    def _completion(
        self, body: Mapping[str, Any], answer: str | None, thoughts: str | None, finish: str, tokens: int, thought: bool
    ) -> Act:
        style = self.style
        message: dict[str, Any] = {"role": "assistant", "content": style.empty if answer is None else answer}
        if thoughts is not None and style.reports == "content":
            closing = "" if answer is None else f"</think>\n\n{answer}"
            message["content"] = f"<think>\n{thoughts}{closing}"
        elif thoughts is not None and style.reports != "none":
            message[style.reports] = thoughts
        choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": finish}
        if style.logprobs and body.get("logprobs"):
            choice["logprobs"] = {"content": [self._first_position(answer or "", thought)]}
        usage: dict[str, Any] = {"prompt_tokens": 10, "completion_tokens": tokens, "total_tokens": 10 + tokens}
        if thought and style.reports == "none":
            usage["completion_tokens_details"] = {"reasoning_tokens": tokens}
        return send(200, {"object": "chat.completion", "choices": [choice], "usage": usage})

    def _first_position(self, answer: str, thought: bool) -> dict[str, Any]:
        """Of the reply with its thoughts: real servers list their tokens first, with hardly anything left for a label."""
        if thought:
            top = {"<think>": -1e-6, "A": -16.0, "B": -19.0}
        else:
            token = re.match(r"\w+|.", answer)
            said = token[0] if token else ""
            other = "B" if said == "A" else "A"
            top = {said: math.log(self.style.mass), other: math.log((1 - self.style.mass) * 0.9)}
        listed = [{"token": name, "logprob": logprob} for name, logprob in top.items()]
        return {**listed[0], "top_logprobs": listed}


def _in_form(form: Mapping[str, Any], answer: str) -> str:
    if form["type"] == "json_object":
        return json.dumps({"answer": answer})
    properties = form["json_schema"]["schema"]["properties"]
    ((name, rule),) = properties.items()
    return json.dumps({name: answer if answer in rule["enum"] else rule["enum"][0]})
