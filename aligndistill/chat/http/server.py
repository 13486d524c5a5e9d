"""Requests for one model to the servers that have it: which one is asked, and what its answer is read as."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from aligndistill.chat.http.connection import Connection, Connections, decode
from aligndistill.chat.http.continuations import Continuation, read_continuation
from aligndistill.chat.http.prompt_logprobs import ScoredPrompt
from aligndistill.chat.http.replicas import Replicas
from aligndistill.chat.http.retries import AccessDenied, TransientError
from aligndistill.chat.http.wire import Completion, ModelCard, model_card, read_completion
from aligndistill.config.models import EndpointModel
from aligndistill.errors import JudgeError
from aligndistill.records import Usage

Sessions = tuple[Connections, ...]
"""One for each URL of a config."""


class Charged(Protocol):
    """An answer that is paid for."""

    def charged(self, at_most: Usage) -> Usage:
        """Its cost for budget and rate limits: as reported by the server, else estimated."""
        ...


Answer = TypeVar("Answer", bound=Charged)


@dataclass(frozen=True)
class Api(Generic[Answer]):
    """One thing that servers do.

    Attributes:
        path: behind the URL of the config.
        what: it answers with, for messages.
        read: the answer in a body; raises `ValueError` if it is none, and `TransientError` if the server broke off.
    """

    path: str
    what: str
    read: Callable[[bytes], Answer]


CHAT: Api[Completion] = Api("chat/completions", "a chat completion", read_completion)
CONTINUATIONS: Api[Continuation] = Api("completions", "a completion", read_continuation)
SCORES: Api[ScoredPrompt] = Api("completions", "a completion", ScoredPrompt.model_validate_json)


class ServerApi:
    """Posts requests for one model to the servers that have it.

    Raises:
        ConfigError: the environment variable of the key is not set, or its value cannot be a key.
    """

    def __init__(self, config: EndpointModel) -> None:
        self._config = config
        self._urls = config.urls
        self._connections = [Connection(url, config.api_key_env, config.timeout_seconds) for url in self._urls]
        self._replicas = Replicas(len(self._urls))
        self.name = f"endpoint {config.server}"

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Sessions]:
        """Connections to each server until the block ends."""
        async with AsyncExitStack() as stack:
            yield tuple([await stack.enter_async_context(connection.session()) for connection in self._connections])

    async def post(self, sessions: Sessions, api: Api[Answer], body: Mapping[str, Any]) -> Answer:
        """One attempt, on the server with the fewest requests in flight. One that fails gets no requests for a while, and another
        is asked at once.

        Raises:
            TransientError: a retry may succeed.
            RequestRejected: the server rejects this request.
            JudgeError: the server rejects all requests.
        """
        number = self._replicas.begin()
        failed = False
        try:
            return await self._post(number, sessions[number], api, body)
        except TransientError as failure:
            failed = len(self._urls) > 1 and not failure.rate_limited
            if not failed:
                raise
            message, overloaded = f"{self._urls[number]}: {failure}", failure.overloaded
        finally:
            self._replicas.end(number, failed)
        raise TransientError(message, 0.0 if self._replicas.another() else None, overloaded)

    async def _post(self, number: int, session: Connections, api: Api[Answer], body: Mapping[str, Any]) -> Answer:
        connection, url = self._connections[number], self._urls[number]
        try:
            content = await connection.post(session, f"{url}/{api.path}", body)
        except AccessDenied as denied:
            advice = denied.advice or connection.advice(denied.status) or "Check base_url and the model's name."
            name = f"endpoint {url} {self._config.name}"
            raise JudgeError(f"{name} rejected the request: {denied}. {advice} Answers received so far are saved.") from None
        try:
            return api.read(content)
        except (ValueError, RecursionError):  # not JSON, or not of this form
            message = f"the response is not {api.what}: {connection.quote(decode(content))}"
        raise TransientError(message)

    async def describe(self, sessions: Sessions) -> ModelCard | None:
        """The entry of the model in the list of models of the first server that answers."""
        for connection, session, url in zip(self._connections, sessions, self._urls, strict=True):
            if (content := await connection.get(session, f"{url}/models")) is not None:
                return model_card(content, self._config.name)
        return None
