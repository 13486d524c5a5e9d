"""What we read of a server's chat completion; whatever else it sends is left alone."""

from typing import Any

from pydantic import BaseModel, ValidationError

from aligndistill.chat.label_tokens import TokenLogprob
from aligndistill.chat.protocol import Reply
from aligndistill.records import Usage


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None
    logprobs: Any = None


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
        """The tokens, as far as the server says."""
        tokens = self.usage or _Tokens()
        return Usage(calls=1, prompt_tokens=tokens.prompt_tokens or 0, completion_tokens=tokens.completion_tokens or 0)

    def reply(self) -> Reply:
        """The first choice; an empty text where there is none or it has no content (a refusal, a filter, a tool call)."""
        if not self.choices:
            return Reply("", "stop", self.cost())
        choice = self.choices[0]
        return Reply(choice.message.content or "", "length" if choice.finish_reason == "length" else "stop", self.cost())

    def first_position(self) -> list[TokenLogprob] | None:
        """The likeliest first tokens; None when no log-probabilities came back, or not in OpenAI's form."""
        if not self.choices:
            return None
        try:
            content = _Logprobs.model_validate(self.choices[0].logprobs).content
        except ValidationError:
            return None
        return content[0].top_logprobs if content else None
