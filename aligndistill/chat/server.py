"""One chat completion from an OpenAI-compatible server, and what came of it."""

import json
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from pydantic import ValidationError

from aligndistill.chat.completion import Completion
from aligndistill.chat.connection import Connection, Session, text_of
from aligndistill.chat.retries import Denied, Transient
from aligndistill.config import EndpointModel
from aligndistill.errors import JudgeError


class Server:
    """Posts chat completions to one address for one model.

    Raises:
        ConfigError: the environment variable of the key is not set, or holds what cannot be a key.
    """

    def __init__(self, config: EndpointModel) -> None:
        self._config = config
        self._connection = Connection(config.base_url, config.api_key_env, config.timeout_seconds)
        self.base_url = config.base_url.rstrip("/")
        self.identity = config.identity

    def session(self) -> AbstractAsyncContextManager[Session]:
        """Connections that are kept open and used again."""
        return self._connection.session()

    async def complete(self, session: Session, messages: list[dict[str, str]], fields: Mapping[str, Any]) -> Completion:
        """One try.

        Raises:
            Transient: it may work another time.
            Refused: this request is not to the server's liking.
            JudgeError: no request will ever be.
        """
        body = {"model": self._config.name, "messages": messages, **fields}
        try:
            content = await self._connection.post(session, f"{self.base_url}/chat/completions", body)
        except Denied as denied:
            advice = denied.advice or self._connection.advice(denied.status) or "Check base_url and the model's name."
            raise JudgeError(f"{self.identity} refused: {denied}. {advice} What was answered so far is kept.") from None
        try:
            return _completion(content)
        except (ValueError, RecursionError):  # no JSON, or none of this form
            words = f"what it sent is not a chat completion: {self._connection.quote(text_of(content))}"
        raise Transient(words)


def _completion(content: bytes) -> Completion:
    """The completion in a body, also in one whose texts hold half a character (a lone surrogate), which is replaced.

    Raises:
        ValidationError: there is none in it.
    """
    try:
        return Completion.model_validate_json(content)
    except ValidationError:
        if b"\\ud" not in content.lower():
            raise
        whole = json.dumps(json.loads(content), ensure_ascii=False)
        return Completion.model_validate_json(whole.encode("utf-8", "replace"))
