"""A model behind an OpenAI-compatible HTTP server.

Servers differ in what they support (`n`, `logprobs` and `response_format` may be silently ignored), so every answer is checked,
and what a server was found to ignore is not requested again.
"""

import itertools
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from typing import Any

from aligndistill.chat.http.adaptive import Limit, limit_of
from aligndistill.chat.http.budget import Account
from aligndistill.chat.http.capabilities import JSON_OBJECT, Capabilities, json_schema
from aligndistill.chat.http.client import OpenSession, ServerClient
from aligndistill.chat.http.concurrency import run_concurrently
from aligndistill.chat.http.probe import find_answer_format, look_at
from aligndistill.chat.http.rate_limit import RateLimiter
from aligndistill.chat.http.retries import RequestRejected, RetriesExhausted
from aligndistill.chat.http.thinking import thinks
from aligndistill.chat.http.wire import Completion, label_logprobs
from aligndistill.chat.protocol import CUT_IN_THOUGHTS, Answered, LabelLogprobs, Reply, Request, SamplingParams, seed_of
from aligndistill.config.models import EndpointModel
from aligndistill.records import Message, Usage, content_hash, prompt_id, total

AGAIN_UNREADABLE = (
    "No verdict could be read in this answer. Give the verdict alone, in the form that was asked for, and nothing else."
)
AGAIN_CUT_OFF = (
    "This answer was too long and was cut off. Give the verdict alone, in the form that was asked for, and nothing else."
)
LONGEST_REPEATED = 2000  # characters of an unreadable answer that are sent back

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Call:
    """Samples of one request, sent as one HTTP request if the server supports `n`."""

    request: int
    samples: tuple[int, ...]
    messages: tuple[Message, ...]


@dataclass(frozen=True)
class _Response:
    """The replies to a call; there may be fewer than samples."""

    call: _Call
    replies: list[Reply]

    @property
    def answered(self) -> list[Answered]:
        return [Answered(self.call.request, sample, reply) for sample, reply in zip(self.call.samples, self.replies, strict=False)]

    @property
    def missing(self) -> list[_Call]:
        return [replace(self.call, samples=(sample,)) for sample in self.call.samples[len(self.replies) :]]


class EndpointChat:
    """A chat model at a URL; see `ChatModel`.

    Args:
        capabilities: the server's known capabilities; unknown by default.
        rate_limiter: limits the request rate; by default as set in the config.
        account: reserves budget for the requests; None sets no limit.
        limit: how many requests are in flight; by default as set in the config.
        looks: before the first request, find out how the server answers (see `probe.py`), once per process.

    Raises:
        ConfigError: the environment variable of the key is not set, or its value cannot be a key.
    """

    def __init__(
        self,
        config: EndpointModel,
        capabilities: Capabilities | None = None,
        rate_limiter: RateLimiter | None = None,
        account: Account | None = None,
        looks: bool = False,
        limit: Limit | None = None,
    ) -> None:
        self._config = config
        self._looks = looks
        self._capabilities = capabilities or Capabilities()
        rate_limiter = rate_limiter or RateLimiter(config.requests_per_minute, config.tokens_per_minute)
        self._server = ServerClient(config, self._capabilities, rate_limiter, account, limit or limit_of(config.concurrency))
        self.identity = config.identity

    @property
    def server(self) -> ServerClient:
        """The server, for requests that are no conversations."""
        return self._server

    @property
    def _thinks(self) -> bool:
        return thinks(self._config, self._capabilities.found)

    def _in_flight(self) -> int:
        return self._server.limit.current

    def look(self) -> None:
        """Find out how the server answers, unless this process has done so.

        Raises:
            JudgeError: the server cannot be reached or rejects all requests, or its thinking cannot be switched off as asked for.
        """
        if self._capabilities.confirmed:
            return
        self._run(lambda session: look_at(self._server, session, self._config, self._capabilities))
        self._capabilities.confirmed = True

    def _run(self, ask: Callable[[OpenSession], Awaitable[None]]) -> None:
        """Send the requests of one function."""
        list(run_concurrently(self._server.session(), lambda session, _: ask(session), [None], 1))

    def _begin(self, requests: Sized) -> None:
        """Before a series of requests."""
        if requests and self._looks:
            self.look()
        self._server.limit.restart()

    # -------------------------------------------------------------------------------------------------------- answers

    def answer(self, requests: Sequence[Request], sampling: SamplingParams) -> Iterator[Answered]:
        """See `ChatModel`. A request that is rejected, fails in every attempt or is too long gets a reply with a `problem`."""
        self._begin(requests)
        if requests and sampling.answer_schema is not None:
            self.find_answer_format()

        async def ask(session: OpenSession, item: _Call) -> _Response:
            return _Response(item, await self._replies(session, item, sampling))

        def calls(indices: Iterable[int]) -> Iterator[_Call]:
            for index in indices:
                request = requests[index]
                if request.samples and self._capabilities.found.several is not False:
                    yield _Call(index, request.samples, request.messages)
                else:
                    yield from (_Call(index, (sample,), request.messages) for sample in request.samples)

        # If it is unknown whether the server supports `n`, one request for several samples is sent before the others.
        several = [index for index, request in enumerate(requests) if len(request.samples) > 1]
        ahead = several[:1] if self._capabilities.found.several is None else []
        others = [index for index in range(len(requests)) if index not in ahead]
        missing: list[_Call] = []
        for some, concurrency in ((ahead, 1), (others, self._in_flight)):
            if not (missing or some):
                continue
            wanted = itertools.chain(missing, calls(some))
            missing = []
            for response in run_concurrently(self._server.session(), ask, wanted, concurrency):
                yield from response.answered
                missing += response.missing
        if missing:
            for response in run_concurrently(self._server.session(), ask, missing, self._in_flight):
                yield from response.answered

    async def _replies(self, session: OpenSession, item: _Call, sampling: SamplingParams) -> list[Reply]:
        """The replies of one HTTP request: one per sample if the server supports `n`, otherwise fewer."""
        limit = self._limit(item.messages, sampling.max_new_tokens, self._thinks)
        if problem := self._server.too_long(item.messages, limit):
            _log.warning("%s: %s", self._server.name, problem)
            return [Reply("", "stop", Usage(), problem)] * len(item.samples)
        n = len(item.samples)
        fields = {
            "temperature": sampling.temperature,
            "max_tokens": limit,
            "seed": _seed(sampling.seed, item.messages, item.samples[0]),
            **({"n": n} if n > 1 else {}),
        }
        try:
            completion = await self._with_or_without_n(session, item.messages, fields, sampling.answer_schema)
        except RequestRejected as refusal:
            refused = await self._server.refused(session, item.request, item.messages, str(refusal))
            return [refused, *[replace(refused, usage=Usage())] * (n - 1)]
        except RetriesExhausted as failure:
            await self._server.given_up(session, failure)
            cost = Usage(calls=1), *[Usage()] * (n - 1)
            return [Reply("", "stop", usage, str(failure)) for usage in cost]
        session.failures_in_a_row = 0
        if n > 1:
            self._capabilities.update(several=len(completion.choices) == n)
        replies = completion.replies()[:n]
        return [await self._usable_or_retried(session, item, fields, sampling, reply) for reply in replies]

    def _limit(self, messages: Sequence[Message], new_tokens: int, with_thoughts: bool) -> int:
        """The most tokens of a reply: servers count thoughts as well."""
        return new_tokens + (self._server.room_for_thoughts(messages, new_tokens) if with_thoughts else 0)

    async def _usable_or_retried(
        self, session: OpenSession, item: _Call, fields: Mapping[str, Any], sampling: SamplingParams, reply: Reply
    ) -> Reply:
        """The reply or, if it is unreadable or was cut off inside its thoughts, the reply to a second request; the first one if the
        second is not better."""
        cut_in_thoughts = reply.problem.startswith(CUT_IN_THOUGHTS)
        fields = {name: value for name, value in fields.items() if name != "n"}
        if cut_in_thoughts:
            limit = self._limit(item.messages, sampling.max_new_tokens, with_thoughts=True)
            if limit <= fields["max_tokens"]:
                return reply
            again, fields["max_tokens"] = item.messages, limit
        elif sampling.readable is None or reply.problem or _is_readable(reply, item, sampling):
            return reply
        else:
            why = AGAIN_UNREADABLE if reply.finish == "stop" else AGAIN_CUT_OFF
            answered = Message(role="assistant", content=reply.text[:LONGEST_REPEATED])
            again = (*item.messages, answered, Message(role="user", content=why))
        if self._server.too_long(again, fields["max_tokens"]):
            return reply
        try:
            completion = await self._in_format(session, again, fields, sampling.answer_schema)
        except (RetriesExhausted, RequestRejected):
            return replace(reply, usage=total(reply.usage, Usage(calls=1)))
        second = completion.reply()
        better = not second.problem and (sampling.readable is None or _is_readable(second, item, sampling))
        return replace(second if better or cut_in_thoughts else reply, usage=total(reply.usage, second.usage))

    async def _with_or_without_n(
        self, session: OpenSession, messages: Sequence[Message], fields: Mapping[str, Any], schema: Mapping[str, Any] | None
    ) -> Completion:
        """As `_in_format`. A request that is rejected with `n` is sent without it, which shows whether `n` is why."""
        try:
            return await self._in_format(session, messages, fields, schema)
        except RequestRejected:
            if "n" not in fields:
                raise
        return await self._in_format(session, messages, {name: value for name, value in fields.items() if name != "n"}, schema)

    async def _in_format(
        self, session: OpenSession, messages: Sequence[Message], fields: Mapping[str, Any], schema: Mapping[str, Any] | None
    ) -> Completion:
        """Request the strictest answer format that the server supports; if that is rejected, request plain text."""
        form: dict[str, Any] | None = None
        found = self._capabilities.found.answer_format
        if schema is not None and found == "json_schema":
            form = json_schema(schema)
        elif schema is not None and found == "json_object" and any("json" in message.content.lower() for message in messages):
            form = JSON_OBJECT  # its keys can only be stated in the prompt
        if form is not None:
            try:
                completion = await self._server.complete(session, messages, **fields, response_format=form)
                return completion.with_answer_from_thoughts(schema) if schema is not None else completion
            except RequestRejected:
                pass
        return await self._server.complete(session, messages, **fields)

    def find_answer_format(self) -> None:
        """Find the strictest answer format that the server enforces, once."""
        if self._capabilities.found.answer_format is not None:
            return
        thought_tokens = self._config.thinking_tokens if self._thinks else 0
        self._run(lambda session: find_answer_format(self._server, session, self._capabilities, thought_tokens))

    # ---------------------------------------------------------------------------------------------- log-probabilities

    def label_logprobs(self, conversations: Sequence[tuple[Message, ...]], labels: Sequence[str]) -> Iterator[LabelLogprobs]:
        """See `ChatModel`. Requested once from a server that gives no log-probabilities, and never from a model that thinks: the
        first token is then none of the answer."""
        self._begin(conversations)
        if self._thinks:
            yield from (LabelLogprobs(index, None, Usage()) for index in range(len(conversations)))
            return

        async def ask(session: OpenSession, index: int) -> LabelLogprobs:
            if self._server.too_long(conversations[index], 1):
                return LabelLogprobs(index, None, Usage())  # reported by the request for text
            unknown = self._capabilities.found.top_logprobs is None
            refused = Usage()
            for top_logprobs in self._capabilities.top_logprobs:
                fields: dict[str, Any] = {"temperature": 0.0, "max_tokens": 1, "seed": 0, "logprobs": True}
                try:
                    completion = await self._server.complete(session, conversations[index], **fields, top_logprobs=top_logprobs)
                except RequestRejected:
                    refused = total(refused, Usage(calls=1))
                    continue
                except RetriesExhausted as failure:
                    await self._server.given_up(session, failure)
                    return LabelLogprobs(index, None, total(refused, Usage(calls=1)))
                session.failures_in_a_row = 0
                tokens = completion.first_position()
                if unknown and completion.choices:
                    self._capabilities.update(top_logprobs=top_logprobs if tokens else 0)
                return LabelLogprobs(index, label_logprobs(tokens, labels) if tokens else None, total(refused, completion.cost()))
            if unknown:
                self._capabilities.update(top_logprobs=0)
            return LabelLogprobs(index, None, refused)

        # If it is unknown what the server gives, one conversation is sent before the others.
        indices = range(len(conversations))
        ahead = 1 if self._capabilities.found.top_logprobs is None else 0
        for some, concurrency in ((indices[:ahead], 1), (indices[ahead:], self._in_flight)):
            if some:
                yield from run_concurrently(self._server.session(), ask, some, concurrency)


def _is_readable(reply: Reply, item: _Call, sampling: SamplingParams) -> bool:
    return reply.finish == "stop" and sampling.readable is not None and sampling.readable(item.request, reply.text)


def _seed(seed: int, messages: Sequence[Message], sample: int) -> int:
    """The seed of one sample, independent of the other requests."""
    return seed_of(content_hash(str(seed), prompt_id(messages), str(sample)))
