"""The capabilities of a server, detected from its answers: servers may silently ignore what they do not support."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

from aligndistill.records import Message

TOP_LOGPROBS = (20, 5)  # OpenAI allows 20; servers that allow fewer allow 5
AnswerFormat = Literal["json_schema", "json_object", "text"]


class ServerCapabilities(BaseModel):
    """The known capabilities of a server and model; None for unknown.

    Attributes:
        answers: whether it has ever answered a request.
        thinks: whether it thinks before it answers, unless a switch is sent.
        switch: the switch that brings it to the mode that the config asks for (see `thinking.py`); None if none is needed, or none
            works.
        context_tokens: the most tokens of prompt and answer together, as the server reports it.
        card: the server's description of the model, to notice that it was restarted with another one.
        label_mass: the probability of a requested letter as the first token of the answer.
        top_logprobs: how many log-probabilities it gives per position, 0 for none.
        several: whether it supports `n`.
        answer_format: the strictest answer format that it enforces.
    """

    answers: bool = False
    thinks: bool | None = None
    switch: str | None = None
    context_tokens: int | None = None
    card: str | None = None
    label_mass: float | None = None
    top_logprobs: int | None = None
    several: bool | None = None
    answer_format: AnswerFormat | None = None


@dataclass
class Capabilities:
    """Capabilities as they are detected.

    Attributes:
        found: the current state.
        save: called with the new state after every change.
        confirmed: whether this process has asked the server since it started.
    """

    found: ServerCapabilities = field(default_factory=ServerCapabilities)
    save: Callable[[ServerCapabilities], None] | None = None
    confirmed: bool = False

    def update(self, **found: Any) -> None:
        """Set fields of `found`, and save it if it changed."""
        updated = self.found.model_copy(update=found)
        if updated != self.found:
            self.found = updated
            if self.save is not None:
                self.save(updated)

    def forget(self) -> None:
        """Everything is unknown again."""
        self.update(**ServerCapabilities().model_dump())

    @property
    def top_logprobs(self) -> tuple[int, ...]:
        """The values of `top_logprobs` to try, in order."""
        known = self.found.top_logprobs
        return TOP_LOGPROBS if known is None else (known,) if known else ()


@dataclass(frozen=True)
class FormatProbe:
    """A request whose answer shows whether the server enforces a format that the prompt does not suggest."""

    name: AnswerFormat
    messages: tuple[Message, ...]
    response_format: Mapping[str, Any]

    def is_honoured(self, text: str) -> bool:
        """Whether the answer has the format."""
        try:
            content = json.loads(text)
        except ValueError:
            return False
        if self.name == "json_object":
            return isinstance(content, dict)
        return isinstance(content, dict) and content.keys() == {"larger"} and content["larger"] in (2, 3)


PROBE_TOKENS = 128  # a grammar allows white space, which small models fill the limit with
_LARGER = {
    "type": "object",
    "properties": {"larger": {"type": "integer", "enum": [2, 3]}},
    "required": ["larger"],
    "additionalProperties": False,
}


def json_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The `response_format` that enforces a schema."""
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


JSON_OBJECT = {"type": "json_object"}
FORMAT_PROBES = (
    FormatProbe("json_schema", (Message(role="user", content="Which is larger, two or three?"),), json_schema(_LARGER)),
    # OpenAI requires the word JSON in the prompt.
    FormatProbe("json_object", (Message(role="user", content="Say hello in plain words, not in JSON."),), JSON_OBJECT),
)
