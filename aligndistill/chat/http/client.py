"""A server that is asked at its pace, as often as it takes and as long as there is budget; and when to give it up."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from aligndistill.chat.http.budget import Account, Reservation
from aligndistill.chat.http.capabilities import Capabilities
from aligndistill.chat.http.connection import Connection, Session, decode
from aligndistill.chat.http.rate_limit import RateLimiter
from aligndistill.chat.http.retries import AccessDenied, RequestRejected, RetriesExhausted, TransientError, retrying
from aligndistill.chat.http.token_counts import TokenCount, by_length, token_count
from aligndistill.chat.http.wire import Completion
from aligndistill.chat.protocol import UNANSWERED, Reply
from aligndistill.config.models import EndpointModel
from aligndistill.errors import JudgeError
from aligndistill.records import Message, Usage

MOST_FAILURES_IN_A_ROW = 20
HEALTH_CHECK_RETRIES = 1
HEALTH_CHECK = (Message(role="user", content="Say yes."),)

_log = logging.getLogger(__name__)


@dataclass
class OpenSession:
    """A session with the server, and how it goes.

    Attributes:
        gone: that the server does not even answer a greeting any more.
    """

    session: Session
    health_check: asyncio.Lock = field(default_factory=asyncio.Lock)
    failures_in_a_row: int = 0
    gone: JudgeError | None = None


class ServerClient:
    """Asks one server for one model.

    Raises:
        ConfigError: the environment variable of the key is not set, or holds what cannot be a key.
    """

    def __init__(self, config: EndpointModel, capabilities: Capabilities, pace: RateLimiter, account: Account | None) -> None:
        self._config = config
        self._server = ServerApi(config)
        self._capabilities = capabilities
        self._pace = pace
        self._account = account
        counted = config.tokenizer is not None or config.context_tokens is not None
        self._tokens = token_count(config) if counted else TokenCount(by_length, exact=False)
        self.identity = self._server.identity

    @asynccontextmanager
    async def session(self) -> AsyncIterator[OpenSession]:
        """Open connections for as long as some requests take."""
        async with self._server.session() as session:
            yield OpenSession(session)

    async def complete(
        self, session: OpenSession, messages: Sequence[Message], max_retries: int | None = None, **fields: Any
    ) -> Completion:
        """One answer, after as many tries as it takes.

        Raises:
            JudgeError: the server refuses for good.
            GaveUp: it did not answer in any try.
            BudgetError: there is no budget left for it.
            Refused: the server refuses this request.
        """
        body = [{"role": message.role, "content": message.content} for message in messages]
        prompt_tokens = self._tokens.count(messages)
        at_most = Usage(calls=1, prompt_tokens=prompt_tokens, completion_tokens=fields["max_tokens"] * fields.get("n", 1))
        retries = self._config.max_retries if max_retries is None else max_retries
        try:
            completion: Completion = await retrying(retries)(self._try, session.session, body, fields, at_most)
        except TransientError as failure:
            raise RetriesExhausted(f"{UNANSWERED} {retries + 1} tries: {failure}") from None
        self._capabilities.learn(answers=True)
        return completion

    async def _try(self, session: Session, body: list[dict[str, str]], fields: Mapping[str, Any], at_most: Usage) -> Completion:
        turn = await self._pace.turn(at_most.prompt_tokens + at_most.completion_tokens)
        async with self._reserve(at_most) as reservation:
            began = time.monotonic()
            try:
                completion = await self._server.complete(session, body, fields)
            except TransientError as failure:
                if failure.retry_after_seconds:
                    self._pace.pause(failure.retry_after_seconds)
                raise
            reservation.cost, reservation.seconds = _charged(completion, at_most), time.monotonic() - began
            turn.tokens = reservation.cost.prompt_tokens + reservation.cost.completion_tokens
            return completion

    @asynccontextmanager
    async def _reserve(self, at_most: Usage) -> AsyncIterator[Reservation]:
        if self._account is None:
            yield Reservation(at_most)
        else:
            async with self._account.reserve(self._config.name, at_most) as reservation:
                yield reservation

    async def refused(self, session: OpenSession, request: int, messages: Sequence[Message], words: str) -> Reply:
        """A reply that says so. When it is not this request but any that is refused, there is nothing to go on for.

        Raises:
            JudgeError: the server refuses the simplest request, too, or has refused many in a row.
        """
        async with session.health_check:
            if not self._capabilities.found.answers:
                try:
                    await self.complete(session, HEALTH_CHECK, temperature=0.0, max_tokens=1)
                except (RetriesExhausted, RequestRejected):
                    raise JudgeError(f"{self.identity} refused: {words}. Check base_url and the model's name.") from None
        length = sum(len(message.content) for message in messages)
        session.failures_in_a_row += 1
        said = (
            f"{self.identity} refused request {request} ({length} characters): {words}. "
            "Shorten the prompts or the candidates if it is too long for the model."
        )
        if session.failures_in_a_row >= MOST_FAILURES_IN_A_ROW:
            raise JudgeError(f"{said} The last {session.failures_in_a_row} requests were refused or failed.")
        _log.warning("%s", said)
        return Reply("", "stop", Usage(calls=1), words)

    async def given_up(self, session: OpenSession, failure: RetriesExhausted) -> None:
        """Lets a failed request pass while the server answers others: it may be this request that it cannot bear.

        Raises:
            JudgeError: the server does not answer the simplest request either, or many have failed in a row.
        """
        said = f"{self.identity} gave {failure}."
        async with session.health_check:
            if session.gone is None:
                try:
                    await self.complete(session, HEALTH_CHECK, HEALTH_CHECK_RETRIES, temperature=0.0, max_tokens=1)
                except (RetriesExhausted, RequestRejected):
                    advice = "Check that the server is up and that base_url is right; what was answered so far is kept."
                    session.gone = JudgeError(f"{said} {advice}")
            if session.gone is not None:
                raise session.gone
        session.failures_in_a_row += 1
        if session.failures_in_a_row >= MOST_FAILURES_IN_A_ROW:
            raise JudgeError(
                f"{said} The last {session.failures_in_a_row} requests were refused or failed; what was answered so far is kept."
            )
        _log.warning("%s It goes on without this one.", said)

    def too_long(self, messages: Sequence[Message], new_tokens: int) -> str:
        """Why a request is not sent; empty where it fits. Some servers answer one that does not fit, with nonsense."""
        context = self._config.context_tokens
        if context is None or (length := self._tokens.count(messages)) + new_tokens <= context:
            return ""
        about = "" if self._tokens.exact else "about "
        return f"a prompt of {about}{length} tokens and {new_tokens} new ones do not fit context_tokens ({context}): not sent"


def _charged(completion: Completion, at_most: Usage) -> Usage:
    """What an answer counts for in budget and pace: what the server says, and our own count where it says nothing."""
    said = completion.cost()
    if said.prompt_tokens or said.completion_tokens:
        return said
    written = sum(by_length([Message(role="assistant", content=reply.text)]) for reply in completion.replies())
    return Usage(calls=1, prompt_tokens=at_most.prompt_tokens, completion_tokens=min(written, at_most.completion_tokens))


class ServerApi:
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
        except AccessDenied as denied:
            advice = denied.advice or self._connection.advice(denied.status) or "Check base_url and the model's name."
            raise JudgeError(f"{self.identity} refused: {denied}. {advice} What was answered so far is kept.") from None
        try:
            return _completion(content)
        except (ValueError, RecursionError):  # no JSON, or none of this form
            words = f"what it sent is not a chat completion: {self._connection.quote(decode(content))}"
        raise TransientError(words)


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
