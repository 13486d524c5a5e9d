"""A model behind an OpenAI-compatible HTTP server.

Servers differ in what they heed (`n`, `logprobs`, `response_format` may be ignored without a word), so every answer is read
for what it is, and what a server was found to ignore is not asked of it again.
"""

import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from aligndistill.chat.http.budget import Account
from aligndistill.chat.http.capabilities import FORMAT_PROBES, JSON_OBJECT, PROBE_TOKENS, Capabilities, FormatProbe, json_schema
from aligndistill.chat.http.client import OpenSession, ServerClient
from aligndistill.chat.http.concurrency import run_concurrently
from aligndistill.chat.http.rate_limit import RateLimiter
from aligndistill.chat.http.retries import RequestRejected, RetriesExhausted
from aligndistill.chat.http.wire import Completion, label_logprobs
from aligndistill.chat.protocol import Answered, LabelLogprobs, Reply, Request, SamplingParams, seed_of
from aligndistill.config.models import EndpointModel
from aligndistill.records import Message, Usage, content_hash, prompt_id, total

AGAIN_UNREADABLE = (
    "No verdict could be read in this answer. Give the verdict alone, in the form that was asked for, and nothing else."
)
AGAIN_CUT_OFF = (
    "This answer was too long and was cut off. Give the verdict alone, in the form that was asked for, and nothing else."
)
LONGEST_REPEATED = 2000  # characters of an answer that could not be read

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Ask:
    """Some samples of one request, which go into one HTTP request where the server heeds `n`."""

    request: int
    samples: tuple[int, ...]
    messages: tuple[Message, ...]


@dataclass(frozen=True)
class _Got:
    """What came of it; the samples beyond the last reply are missing."""

    ask: _Ask
    replies: list[Reply]

    @property
    def answered(self) -> list[Answered]:
        return [Answered(self.ask.request, sample, reply) for sample, reply in zip(self.ask.samples, self.replies, strict=False)]

    @property
    def missing(self) -> list[_Ask]:
        return [replace(self.ask, samples=(sample,)) for sample in self.ask.samples[len(self.replies) :]]


class EndpointChat:
    """A chat model at a URL; see `ChatModel`.

    Args:
        capabilities: what is known of the server; by default nothing.
        pace: how fast it may be asked; by default as the config says.
        account: pays for the requests; None lets all pass.

    Raises:
        ConfigError: the environment variable of the key is not set, or holds what cannot be a key.
    """

    def __init__(
        self,
        config: EndpointModel,
        capabilities: Capabilities | None = None,
        pace: RateLimiter | None = None,
        account: Account | None = None,
    ) -> None:
        self._concurrency = config.concurrency
        self._capabilities = capabilities or Capabilities()
        pace = pace or RateLimiter(config.requests_per_minute, config.tokens_per_minute)
        self._server = ServerClient(config, self._capabilities, pace, account)
        self.identity = self._server.identity

    # -------------------------------------------------------------------------------------------------------- answers

    def answer(self, requests: Sequence[Request], sampling: SamplingParams) -> Iterator[Answered]:
        """See `ChatModel`. A request that is refused, fails in every try or does not fit the context is answered by a `problem`."""
        if requests and sampling.answer_schema is not None:
            self._find_answer_format()

        async def ask(session: OpenSession, item: _Ask) -> _Got:
            return _Got(item, await self._replies(session, item, sampling))

        def asks(indices: Iterable[int]) -> Iterator[_Ask]:
            for index in indices:
                request = requests[index]
                if request.samples and self._capabilities.found.several is not False:
                    yield _Ask(index, request.samples, request.messages)
                else:
                    yield from (_Ask(index, (sample,), request.messages) for sample in request.samples)

        # While it is not known whether the server heeds `n`, one request for several samples goes ahead of the others.
        several = [index for index, request in enumerate(requests) if len(request.samples) > 1]
        ahead = several[:1] if self._capabilities.found.several is None else []
        others = [index for index in range(len(requests)) if index not in ahead]
        missing: list[_Ask] = []
        for some, concurrency in ((ahead, 1), (others, self._concurrency)):
            if not (missing or some):
                continue
            wanted = itertools.chain(missing, asks(some))
            missing = []
            for got in run_concurrently(self._server.session(), ask, wanted, concurrency):
                yield from got.answered
                missing += got.missing
        if missing:
            for got in run_concurrently(self._server.session(), ask, missing, self._concurrency):
                yield from got.answered

    async def _replies(self, session: OpenSession, item: _Ask, sampling: SamplingParams) -> list[Reply]:
        """What one HTTP request brings: a reply for each sample from a server that heeds `n`, fewer from the others."""
        if problem := self._server.too_long(item.messages, sampling.max_new_tokens):
            _log.warning("%s: %s", self.identity, problem)
            return [Reply("", "stop", Usage(), problem)] * len(item.samples)
        n = len(item.samples)
        fields = {
            "temperature": sampling.temperature,
            "max_tokens": sampling.max_new_tokens,
            "seed": _seed(sampling.seed, item.messages, item.samples[0]),
            **({"n": n} if n > 1 else {}),
        }
        try:
            completion = await self._in_format(session, item.messages, fields, sampling.answer_schema)
        except RequestRejected as refusal:
            if n > 1:  # perhaps for the number alone
                self._capabilities.learn(several=False)
                return []
            return [await self._server.refused(session, item.request, item.messages, str(refusal))]
        except RetriesExhausted as failure:
            await self._server.given_up(session, failure)
            cost = Usage(calls=1), *[Usage()] * (n - 1)
            return [Reply("", "stop", usage, str(failure)) for usage in cost]
        session.failures_in_a_row = 0
        if n > 1:
            self._capabilities.learn(several=len(completion.choices) == n)
        replies = completion.replies()[:n]
        return [await self._read_or_asked_again(session, item, fields, sampling, reply) for reply in replies]

    async def _read_or_asked_again(
        self, session: OpenSession, item: _Ask, fields: Mapping[str, Any], sampling: SamplingParams, reply: Reply
    ) -> Reply:
        """The reply, or that to a second request where nothing can be read in it; the first if the second is no better."""
        if sampling.readable is None or reply.problem or (reply.finish == "stop" and sampling.readable(item.request, reply.text)):
            return reply
        why = AGAIN_UNREADABLE if reply.finish == "stop" else AGAIN_CUT_OFF
        answered = Message(role="assistant", content=reply.text[:LONGEST_REPEATED])
        again = (*item.messages, answered, Message(role="user", content=why))
        if self._server.too_long(again, sampling.max_new_tokens):
            return reply
        try:
            completion = await self._in_format(
                session, again, {name: value for name, value in fields.items() if name != "n"}, sampling.answer_schema
            )
        except (RetriesExhausted, RequestRejected):
            return replace(reply, usage=total(reply.usage, Usage(calls=1)))
        second = completion.reply()
        better = not second.problem and second.finish == "stop" and sampling.readable(item.request, second.text)
        return replace(second if better else reply, usage=total(reply.usage, second.usage))

    async def _in_format(
        self, session: OpenSession, messages: Sequence[Message], fields: Mapping[str, Any], schema: Mapping[str, Any] | None
    ) -> Completion:
        """Ask in the strictest form that the server keeps to; a request that is refused so is asked for text."""
        form: dict[str, Any] | None = None
        found = self._capabilities.found.answer_format
        if schema is not None and found == "json_schema":
            form = json_schema(schema)
        elif schema is not None and found == "json_object" and any("json" in message.content.lower() for message in messages):
            form = JSON_OBJECT  # which keys it has, only the request's words can say
        if form is not None:
            try:
                return await self._server.complete(session, messages, **fields, response_format=form)
            except RequestRejected:
                pass
        return await self._server.complete(session, messages, **fields)

    def _find_answer_format(self) -> None:
        """Find out once which form of answer the server keeps to, by answers that have it though their requests do not ask."""
        if self._capabilities.found.answer_format is not None:
            return

        async def ask(session: OpenSession, probe: FormatProbe) -> bool:
            form: dict[str, Any] = {"response_format": probe.response_format}
            try:
                completion = await self._server.complete(session, probe.messages, temperature=0.0, max_tokens=PROBE_TOKENS, **form)
            except RequestRejected:
                return False
            except RetriesExhausted as failure:
                await self._server.given_up(session, failure)
                return False
            return probe.heeded(completion.reply().text)

        for probe in FORMAT_PROBES:
            if next(iter(run_concurrently(self._server.session(), ask, [probe], 1))):
                self._capabilities.learn(answer_format=probe.name)
                return
        self._capabilities.learn(answer_format="text")

    # ---------------------------------------------------------------------------------------------- log-probabilities

    def label_logprobs(self, conversations: Sequence[tuple[Message, ...]], labels: Sequence[str]) -> Iterator[LabelLogprobs]:
        """See `ChatModel`. A server that gives no log-probabilities is asked once."""

        async def ask(session: OpenSession, index: int) -> LabelLogprobs:
            if self._server.too_long(conversations[index], 1):
                return LabelLogprobs(index, None, Usage())  # which is said when it is asked for text
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
                    self._capabilities.learn(top_logprobs=top_logprobs if tokens else 0)
                return LabelLogprobs(index, label_logprobs(tokens, labels) if tokens else None, total(refused, completion.cost()))
            if unknown:
                self._capabilities.learn(top_logprobs=0)
            return LabelLogprobs(index, None, refused)

        # While it is not known what the server gives, one conversation goes ahead of the others.
        indices = range(len(conversations))
        ahead = 1 if self._capabilities.found.top_logprobs is None else 0
        for some, concurrency in ((indices[:ahead], 1), (indices[ahead:], self._concurrency)):
            if some:
                yield from run_concurrently(self._server.session(), ask, some, concurrency)


def _seed(seed: int, messages: Sequence[Message], sample: int) -> int:
    """From what names the answer, whatever else is asked beside it."""
    return seed_of(content_hash(str(seed), prompt_id(messages), str(sample)))
