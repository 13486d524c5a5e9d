"""Text that continues a prompt, as servers give it at `/v1/completions`."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from aligndistill.chat.http.retries import TransientError
from aligndistill.chat.http.wire import CUT_OFF, failure_in
from aligndistill.chat.protocol import Reply
from aligndistill.config.models import EndpointModel
from aligndistill.records import Usage


def continuation_body(config: EndpointModel, ids: Sequence[int], new_tokens: int, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a request to continue these tokens, with what the config adds and omits."""
    sent = {name: value for name, value in fields.items() if name not in config.omit}
    return {"model": config.name, "prompt": [*ids], "max_tokens": new_tokens, **sent, **config.body}


class _Continued(BaseModel):
    text: str
    finish_reason: str | None = None


class _Spent(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Continuation(BaseModel):
    """The body of an answer with status 200."""

    choices: list[_Continued]
    usage: _Spent | None = None

    def charged(self, at_most: Usage) -> Usage:
        """The cost for budget and rate limits: as reported by the server, else what was allowed."""
        used = self.usage or _Spent()
        if not used.prompt_tokens:
            return at_most
        return Usage(calls=1, prompt_tokens=used.prompt_tokens, completion_tokens=used.completion_tokens or 0)

    def reply(self, prompt_tokens: int) -> Reply:
        """The text as a reply."""
        usage = self.charged(Usage(calls=1, prompt_tokens=prompt_tokens))
        if not self.choices:
            return Reply("", "stop", usage, "no text")
        (choice, *_) = self.choices
        return Reply(choice.text.strip(), "length" if choice.finish_reason in CUT_OFF else "stop", usage)


def read_continuation(content: bytes) -> Continuation:
    """The continuation in a body.

    Raises:
        ValidationError: it is none.
        TransientError: the server broke off.
    """
    continuation = Continuation.model_validate_json(content)
    if failure := failure_in(choice.finish_reason for choice in continuation.choices):
        raise TransientError(failure)
    return continuation
