"""A client for one server with rate limits, retries and budget, and the decision when to stop."""

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aligndistill.chat.http.adaptive import Limit
from aligndistill.chat.http.budget import Account, Reservation
from aligndistill.chat.http.capabilities import Capabilities
from aligndistill.chat.http.continuations import Continuation, continuation_body
from aligndistill.chat.http.prompt_logprobs import ScoredPrompt, scoring_body
from aligndistill.chat.http.rate_limit import RateLimiter
from aligndistill.chat.http.retries import RequestRejected, RetriesExhausted, TransientError, retrying
from aligndistill.chat.http.server import CHAT, CONTINUATIONS, SCORES, Answer, Api, ServerApi, Sessions
from aligndistill.chat.http.thinking import request_body
from aligndistill.chat.http.token_counts import TokenCount, by_length, token_count
from aligndistill.chat.http.wire import Completion, ModelCard
from aligndistill.chat.protocol import UNANSWERED, Reply
from aligndistill.config.models import EndpointModel
from aligndistill.errors import JudgeError
from aligndistill.records import Message, Usage, as_dicts

MOST_FAILURES_IN_A_ROW = 20
HEALTH_CHECK_RETRIES = 1
HEALTH_CHECK = (Message(role="user", content="Say yes."),)

_log = logging.getLogger(__name__)


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
        body = as_dicts(messages)
        prompt_tokens = self._tokens.count(messages)
        at_most = Usage(calls=1, prompt_tokens=prompt_tokens, completion_tokens=fields["max_tokens"] * fields.get("n", 1))
        retries = self._config.max_retries if max_retries is None else max_retries
        request = request_body(self._config, body, fields, switch or self._capabilities.found.switch)
        completion = await self._answered(session, CHAT, request, at_most, retries)
        self._capabilities.update(answers=True)
        return completion

    async def score(self, session: OpenSession, ids: Sequence[int]) -> ScoredPrompt:
        """What the server says of each token of a prompt, with retries.

        Raises:
            JudgeError, RetriesExhausted, BudgetError, RequestRejected: as in `complete`.
        """
        at_most = Usage(calls=1, prompt_tokens=len(ids), completion_tokens=1)
        return await self._answered(session, SCORES, scoring_body(self._config, ids), at_most, self._config.max_retries)

    async def continue_ids(
        self, session: OpenSession, ids: Sequence[int], new_tokens: int, fields: Mapping[str, Any]
    ) -> Continuation:
        """Text that continues a prompt, with retries.

        Raises:
            JudgeError, RetriesExhausted, BudgetError, RequestRejected: as in `complete`.
        """
        at_most = Usage(calls=1, prompt_tokens=len(ids), completion_tokens=new_tokens)
        body = continuation_body(self._config, ids, new_tokens, fields)
        return await self._answered(session, CONTINUATIONS, body, at_most, self._config.max_retries)

    async def _answered(
        self, session: OpenSession, api: Api[Answer], body: Mapping[str, Any], at_most: Usage, retries: int
    ) -> Answer:
        try:
            found: Answer = await retrying(retries)(self._try, session.session, api, body, at_most)
        except TransientError as failure:
            raise RetriesExhausted(f"{UNANSWERED} {retries + 1} attempts: {failure}") from None
        return found

    async def _try(self, session: Sessions, api: Api[Answer], body: Mapping[str, Any], at_most: Usage) -> Answer:
        slot = await self._rate_limiter.acquire(at_most.prompt_tokens + at_most.completion_tokens)
        async with self._reserve(at_most) as reservation:
            began, place = time.monotonic(), self.limit.began()
            answered = overloaded = False
            try:
                found = await self._server.post(session, api, body)
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
            reservation.cost, reservation.seconds = found.charged(at_most), time.monotonic() - began
            slot.tokens = reservation.cost.prompt_tokens + reservation.cost.completion_tokens
            return found

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
            JudgeError: the server rejects the health check too, or rejects a field that every request has. The check is sent before
                the server's first answer and after many failures in a row: those may be what earlier runs left, all too long, say.
        """
        if advice := field_advice(reason):  # every request has this field
            raise JudgeError(f"{self.name} rejected the request: {reason}. {advice}")
        length = sum(len(message.content) for message in messages)
        message = (
            f"{self.name} rejected request {request} ({length} characters): {reason}. "
            "Shorten the prompts or the candidates if it is too long for the model."
        )
        async with session.health_check:
            if not self._capabilities.found.answers and not await self._is_healthy(session):
                raise JudgeError(f"{self.name} rejected the request: {reason}. Check base_url and the model's name.")
            session.failures_in_a_row += 1
            if session.failures_in_a_row >= MOST_FAILURES_IN_A_ROW:
                if not await self._is_healthy(session):
                    raise JudgeError(f"{message} The last {session.failures_in_a_row} requests were rejected or failed.")
                session.failures_in_a_row = 0
        _log.warning("%s", message)
        return Reply("", "stop", Usage(calls=1), reason)

    async def given_up(self, session: OpenSession, failure: RetriesExhausted) -> None:
        """Accepts the failure of one request if the server still answers others.

        Raises:
            JudgeError: the health check fails too, or many requests have failed in a row.
        """
        message = f"{self.name}: {failure}."
        async with session.health_check:
            if session.unreachable is None and not await self._is_healthy(session, HEALTH_CHECK_RETRIES):
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

    async def _is_healthy(self, session: OpenSession, max_retries: int | None = None) -> bool:
        """Whether the server answers the simplest request."""
        try:
            await self.complete(session, HEALTH_CHECK, max_retries, temperature=0.0, max_tokens=1)
        except (RetriesExhausted, RequestRejected):
            return False
        return True

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


_FIELDS = re.compile(r"max_completion_tokens|\bseed\b|\btemperature\b")


def field_advice(reason: str) -> str:
    """What to write into the config if a server names one of our fields as unsupported; empty if it names none."""
    found = set(_FIELDS.findall(reason))
    if "max_completion_tokens" in found and "max_tokens" in reason:
        return "Write limit_field: max_completion_tokens beside the model's name."
    named = sorted(found & {"seed", "temperature"})
    return f"Write omit: [{', '.join(named)}] beside the model's name." if named else ""
