"""A client for one server with rate limits, retries and budget, and the decision when to stop."""

import asyncio
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from aligndistill.chat.http.adaptive import Limit
from aligndistill.chat.http.budget import Account, Reservation
from aligndistill.chat.http.capabilities import Capabilities
from aligndistill.chat.http.connection import Connection, Session, decode
from aligndistill.chat.http.rate_limit import RateLimiter
from aligndistill.chat.http.replicas import Replicas
from aligndistill.chat.http.retries import AccessDenied, RequestRejected, RetriesExhausted, TransientError, retrying
from aligndistill.chat.http.thinking import request_body
from aligndistill.chat.http.token_counts import TokenCount, by_length, token_count
from aligndistill.chat.http.wire import Completion, ModelCard, model_card
from aligndistill.chat.protocol import UNANSWERED, Reply
from aligndistill.config.models import EndpointModel
from aligndistill.errors import JudgeError
from aligndistill.records import Message, Usage

MOST_FAILURES_IN_A_ROW = 20
HEALTH_CHECK_RETRIES = 1
HEALTH_CHECK = (Message(role="user", content="Say yes."),)

_log = logging.getLogger(__name__)

Sessions = tuple[Session, ...]
"""One for each URL of a config."""


@dataclass
class OpenSession:
    """A session with the server, and its state.

    Attributes:
        health_check: held during a health check.
        failures_in_a_row: requests that were rejected or failed since the last success.
        unreachable: the error, once a health check has failed.
    """

    session: Sessions
    health_check: asyncio.Lock = field(default_factory=asyncio.Lock)
    failures_in_a_row: int = 0
    unreachable: JudgeError | None = None


class ServerClient:
    """Sends requests for one model to one server.

    Attributes:
        limit: how many requests may be in flight; the caller keeps to it.

    Raises:
        ConfigError: the environment variable of the key is not set, or its value cannot be a key.
    """

    def __init__(
        self,
        config: EndpointModel,
        capabilities: Capabilities,
        rate_limiter: RateLimiter,
        account: Account | None,
        limit: Limit,
    ) -> None:
        self._config = config
        self.limit = limit
        self._server = ServerApi(config)
        self._capabilities = capabilities
        self._rate_limiter = rate_limiter
        self._account = account
        counted = config.tokenizer is not None or config.context_tokens is not None
        self._tokens = token_count(config) if counted else TokenCount(by_length, exact=False)
        self.name = self._server.name

    @asynccontextmanager
    async def session(self) -> AsyncIterator[OpenSession]:
        """Keeps connections open."""
        async with self._server.session() as session:
            yield OpenSession(session)

    async def complete(
        self,
        session: OpenSession,
        messages: Sequence[Message],
        max_retries: int | None = None,
        switch: str | None = None,
        **fields: Any,
    ) -> Completion:
        """One answer, with retries.

        Args:
            switch: for the model's thinking, instead of the one that is known to work.

        Raises:
            JudgeError: the server rejects all requests.
            RetriesExhausted: every attempt failed.
            BudgetError: the budget is spent.
            RequestRejected: the server rejects this request.
        """
        body = [{"role": message.role, "content": message.content} for message in messages]
        prompt_tokens = self._tokens.count(messages)
        at_most = Usage(calls=1, prompt_tokens=prompt_tokens, completion_tokens=fields["max_tokens"] * fields.get("n", 1))
        retries = self._config.max_retries if max_retries is None else max_retries
        try:
            switch = switch or self._capabilities.found.switch
            request = request_body(self._config, body, fields, switch)
            completion: Completion = await retrying(retries)(self._try, session.session, request, at_most)
        except TransientError as failure:
            raise RetriesExhausted(f"{UNANSWERED} {retries + 1} attempts: {failure}") from None
        self._capabilities.update(answers=True)
        return completion

    async def _try(self, session: Sessions, body: Mapping[str, Any], at_most: Usage) -> Completion:
        slot = await self._rate_limiter.acquire(at_most.prompt_tokens + at_most.completion_tokens)
        async with self._reserve(at_most) as reservation:
            began, place = time.monotonic(), self.limit.began()
            answered = overloaded = False
            try:
                completion = await self._server.complete(session, body)
                answered = True
            except TransientError as failure:
                overloaded = failure.overloaded
                if failure.retry_after_seconds and failure.rate_limited and self.limit.adapts:
                    overloaded = False  # a limit on the rate: fewer in flight would only use less of it
                    self._rate_limiter.rejected(slot, failure.retry_after_seconds)
                    self.limit.restart()
                elif failure.retry_after_seconds:
                    self._rate_limiter.pause(failure.retry_after_seconds)
                raise
            finally:
                self.limit.ended(place, overloaded, answered)
            reservation.cost, reservation.seconds = _charged(completion, at_most), time.monotonic() - began
            slot.tokens = reservation.cost.prompt_tokens + reservation.cost.completion_tokens
            return completion

    @asynccontextmanager
    async def _reserve(self, at_most: Usage) -> AsyncIterator[Reservation]:
        if self._account is None:
            yield Reservation(at_most)
        else:
            async with self._account.reserve(self._config.name, at_most) as reservation:
                yield reservation

    async def refused(self, session: OpenSession, request: int, messages: Sequence[Message], reason: str) -> Reply:
        """A reply with a `problem` for a rejected request, unless the server rejects all requests.

        Raises:
            JudgeError: the server rejects the health check too, has rejected many requests in a row, or rejects a field that every
                request has.
        """
        if advice := field_advice(reason):  # every request has this field
            raise JudgeError(f"{self.name} rejected the request: {reason}. {advice}")
        async with session.health_check:
            if not self._capabilities.found.answers:
                try:
                    await self.complete(session, HEALTH_CHECK, temperature=0.0, max_tokens=1)
                except (RetriesExhausted, RequestRejected):
                    raise JudgeError(f"{self.name} rejected the request: {reason}. Check base_url and the model's name.") from None
        length = sum(len(message.content) for message in messages)
        session.failures_in_a_row += 1
        message = (
            f"{self.name} rejected request {request} ({length} characters): {reason}. "
            "Shorten the prompts or the candidates if it is too long for the model."
        )
        if session.failures_in_a_row >= MOST_FAILURES_IN_A_ROW:
            raise JudgeError(f"{message} The last {session.failures_in_a_row} requests were rejected or failed.")
        _log.warning("%s", message)
        return Reply("", "stop", Usage(calls=1), reason)

    async def given_up(self, session: OpenSession, failure: RetriesExhausted) -> None:
        """Accepts the failure of one request if the server still answers others.

        Raises:
            JudgeError: the health check fails too, or many requests have failed in a row.
        """
        message = f"{self.name}: {failure}."
        async with session.health_check:
            if session.unreachable is None:
                try:
                    await self.complete(session, HEALTH_CHECK, HEALTH_CHECK_RETRIES, temperature=0.0, max_tokens=1)
                except (RetriesExhausted, RequestRejected):
                    advice = "Check that the server is running and that base_url is correct. Answers received so far are saved."
                    session.unreachable = JudgeError(f"{message} {advice}")
            if session.unreachable is not None:
                raise session.unreachable
        session.failures_in_a_row += 1
        if session.failures_in_a_row >= MOST_FAILURES_IN_A_ROW:
            raise JudgeError(
                f"{message} The last {session.failures_in_a_row} requests were rejected or failed. "
                "Answers received so far are saved."
            )
        _log.warning("%s Continuing without a reply to this request.", message)

    def room_for_thoughts(self, messages: Sequence[Message], new_tokens: int) -> int:
        """The most tokens of thoughts: `thinking_tokens`, or what the server's context leaves."""
        context = self._config.context_tokens or self._capabilities.found.context_tokens
        room = self._config.thinking_tokens
        return room if context is None else max(min(room, context - self._tokens.count(messages) - new_tokens), 0)

    async def describe(self, session: OpenSession) -> ModelCard | None:
        """What the server says of the model; None if it says nothing."""
        return await self._server.describe(session.session)

    def too_long(self, messages: Sequence[Message], new_tokens: int) -> str:
        """Why a request is not sent; empty if it fits. Some servers answer a request that does not fit with nonsense."""
        context = self._config.context_tokens
        if context is None and self._tokens.exact:  # an estimate may be too high, and a server that reports its limit holds it
            context = self._capabilities.found.context_tokens
        if context is None or (length := self._tokens.count(messages)) + new_tokens <= context:
            return ""
        about = "" if self._tokens.exact else "about "
        return f"a prompt of {about}{length} tokens and {new_tokens} new ones exceed context_tokens ({context}): not sent"


def _charged(completion: Completion, at_most: Usage) -> Usage:
    """The cost of an answer for budget and rate limits: as reported by the server, else estimated."""
    reported = completion.cost()
    if reported.prompt_tokens or reported.completion_tokens:
        return reported
    written = sum(by_length([Message(role="assistant", content=reply.text)]) for reply in completion.replies())
    return Usage(calls=1, prompt_tokens=at_most.prompt_tokens, completion_tokens=min(written, at_most.completion_tokens))


class ServerApi:
    """Posts chat completions for one model to the servers that have it.

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
        """Connections that are kept open and reused."""
        async with AsyncExitStack() as stack:
            yield tuple([await stack.enter_async_context(connection.session()) for connection in self._connections])

    async def complete(self, sessions: Sessions, body: Mapping[str, Any]) -> Completion:
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
            return await self._complete(number, sessions[number], body)
        except TransientError as failure:
            failed = len(self._urls) > 1 and not failure.rate_limited
            if not failed:
                raise
            message, overloaded = f"{self._urls[number]}: {failure}", failure.overloaded
        finally:
            self._replicas.end(number, failed)
        raise TransientError(message, 0.0 if self._replicas.another() else None, overloaded)

    async def _complete(self, number: int, session: Session, body: Mapping[str, Any]) -> Completion:
        connection, url = self._connections[number], self._urls[number]
        try:
            content = await connection.post(session, f"{url}/chat/completions", body)
        except AccessDenied as denied:
            advice = denied.advice or connection.advice(denied.status) or "Check base_url and the model's name."
            name = f"endpoint {url} {self._config.name}"
            raise JudgeError(f"{name} rejected the request: {denied}. {advice} Answers received so far are saved.") from None
        try:
            return _completion(content)
        except (ValueError, RecursionError):  # not JSON, or not of this form
            message = f"the response is not a chat completion: {connection.quote(decode(content))}"
        raise TransientError(message)

    async def describe(self, sessions: Sessions) -> ModelCard | None:
        """The entry of the model in the list of models of the first server that answers."""
        for connection, session, url in zip(self._connections, sessions, self._urls, strict=True):
            if (content := await connection.get(session, f"{url}/models")) is not None:
                return model_card(content, self._config.name)
        return None


_FIELDS = re.compile(r"max_completion_tokens|\bseed\b|\btemperature\b")


def field_advice(reason: str) -> str:
    """What to write into the config if a server names one of our fields as unsupported; empty if it names none."""
    found = set(_FIELDS.findall(reason))
    if "max_completion_tokens" in found and "max_tokens" in reason:
        return "Write limit_field: max_completion_tokens beside the model's name."
    named = sorted(found & {"seed", "temperature"})
    return f"Write omit: [{', '.join(named)}] beside the model's name." if named else ""


def _completion(content: bytes) -> Completion:
    """The completion in a body. Lone surrogates in its texts are replaced.

    Raises:
        ValidationError: it is not a completion.
    """
    try:
        return Completion.model_validate_json(content)
    except ValidationError:
        if b"\\ud" not in content.lower():
            raise
        whole = json.dumps(json.loads(content), ensure_ascii=False)
        return Completion.model_validate_json(whole.encode("utf-8", "replace"))
