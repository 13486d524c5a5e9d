"""What a server was found to do, by its answers; what it accepts without a word says nothing."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

from aligndistill.records import Message

TOP_LOGPROBS = (20, 5)  # OpenAI allows 20; servers that allow fewer allow 5
AnswerFormat = Literal["json_schema", "json_object", "text"]


class ServerCapabilities(BaseModel):
    """What is known of a server and model.

    Attributes:
        answers: whether it has ever answered a request as it should.
        top_logprobs: how many it gives per position, 0 for none.
        several: whether it heeds `n`.
        answer_format: the strictest form of answer that it keeps to.
    """

    answers: bool = False
    top_logprobs: int | None = None
    several: bool | None = None
    answer_format: AnswerFormat | None = None


@dataclass
class Capabilities:
    """`found`, as it is found; `remember` is told of every change."""

    found: ServerCapabilities = field(default_factory=ServerCapabilities)
    remember: Callable[[ServerCapabilities], None] | None = None

    def learn(self, **found: Any) -> None:
        """Take over what was found, if it is news."""
        read_new = self.found.model_copy(update=found)
        if read_new != self.found:
            self.found = read_new
            if self.remember is not None:
                self.remember(read_new)

    @property
    def top_logprobs(self) -> tuple[int, ...]:
        """What to ask for, in this order."""
        known = self.found.top_logprobs
        return TOP_LOGPROBS if known is None else (known,) if known else ()


@dataclass(frozen=True)
class FormatProbe:
    """A request whose answer shows whether the server keeps to a form that its words do not suggest."""

    name: AnswerFormat
    messages: tuple[Message, ...]
    response_format: Mapping[str, Any]

    def heeded(self, text: str) -> bool:
        """Whether the answer has the form."""
        try:
            content = json.loads(text)
        except ValueError:
            return False
        if self.name == "json_object":
            return isinstance(content, dict)
        return isinstance(content, dict) and content.keys() == {"larger"} and content["larger"] in (2, 3)


PROBE_TOKENS = 32
_LARGER = {
    "type": "object",
    "properties": {"larger": {"type": "integer", "enum": [2, 3]}},
    "required": ["larger"],
    "additionalProperties": False,
}


def json_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The `response_format` that holds an answer to a schema."""
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


JSON_OBJECT = {"type": "json_object"}
FORMAT_PROBES = (
    FormatProbe("json_schema", (Message(role="user", content="Which is larger, two or three?"),), json_schema(_LARGER)),
    # OpenAI wants the word in the request.
    FormatProbe("json_object", (Message(role="user", content="Say hello in plain words, not in JSON."),), JSON_OBJECT),
)
