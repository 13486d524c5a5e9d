"""The fields of a server's chat completion that are used; others are ignored."""

import math
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from aligndistill.chat.protocol import Reply
from aligndistill.records import Usage

NEGLIGIBLE_SHARE = 1e-3


class TokenLogprob(BaseModel):
    """One of a position's most likely tokens and its log-probability, nats."""

    token: str
    logprob: float


def label_logprobs(tokens: Sequence[TokenLogprob], labels: Sequence[str]) -> tuple[float, ...] | None:
    """The log-probability of each label as the first token, nats.

    Tokens that differ only in leading white space count as one label. A label that is not listed gets the remaining probability,
    or the smallest listed one if that is less, which is an upper bound.

    Returns:
        None if the tokens are not conclusive: no label is among them, or a label (`1`) with more than a negligible share of the
        probability may be the first token of a longer label (`10`).
    """
    listed = [token for token in tokens if math.isfinite(token.logprob)]
    mass = {label: sum(math.exp(t.logprob) for t in listed if t.token.lstrip() == label) for label in labels}
    seen = sum(mass.values())
    if seen == 0:
        return None
    for label, probability in mass.items():
        longer_unseen = any(mass[other] == 0 for other in labels if other != label and other.startswith(label))
        if longer_unseen and probability > NEGLIGIBLE_SHARE * seen:
            return None
    smallest = min(math.exp(token.logprob) for token in listed)
    left_over = max(1.0 - sum(math.exp(token.logprob) for token in listed), 0.0)
    floor = max(min(left_over, smallest), math.ulp(0.0))
    return tuple(math.log(mass[label] or floor) for label in labels)


class _Message(BaseModel):
    content: str | None = None
    refusal: Any = None
    tool_calls: Any = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None
    logprobs: Any = None

    def reply(self, usage: Usage) -> Reply:
        text, finish = self.message.content or "", "length" if self.finish_reason == "length" else "stop"
        problem = ""
        if self.finish_reason == "content_filter":
            problem = "stopped by the server's content filter"
        elif self.message.refusal:
            problem = "refused by the model"
        elif self.message.tool_calls and not text:
            problem = "a tool call instead of a text"
        elif self.message.content is None:
            problem = "no text"
        return Reply(text, "length" if finish == "length" else "stop", usage, problem)


class _Tokens(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Position(BaseModel):
    top_logprobs: list[TokenLogprob]


class _Logprobs(BaseModel):
    content: list[_Position]


class Completion(BaseModel):
    """The body of an answer with status 200."""

    choices: list[_Choice]
    usage: _Tokens | None = None

    def cost(self) -> Usage:
        """The tokens reported by the server."""
        tokens = self.usage or _Tokens()
        return Usage(calls=1, prompt_tokens=tokens.prompt_tokens or 0, completion_tokens=tokens.completion_tokens or 0)

    def reply(self) -> Reply:
        """The first choice, or an empty text with a `problem` if there is none."""
        return self.replies()[0]

    def replies(self) -> list[Reply]:
        """All choices, at least one; the first has the whole cost."""
        if not self.choices:
            return [Reply("", "stop", self.cost(), "no choices")]
        return [choice.reply(Usage() if number else self.cost()) for number, choice in enumerate(self.choices)]

    def first_position(self) -> list[TokenLogprob] | None:
        """The most likely first tokens; None if there are no log-probabilities in OpenAI's format."""
        if not self.choices:
            return None
        try:
            content = _Logprobs.model_validate(self.choices[0].logprobs).content
        except ValidationError:
            return None
        return content[0].top_logprobs if content else None
