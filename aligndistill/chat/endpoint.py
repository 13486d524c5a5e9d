"""A model behind an OpenAI-compatible HTTP server.

Servers differ in what they heed (`n`, `logprobs`, `response_format` may be ignored without a word), so every answer is read
for what it is, and nothing but the fields that all of them know is ever sent.
"""

import asyncio
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import openai
from pydantic import ValidationError

from aligndistill.chat.completion import Completion
from aligndistill.chat.in_flight import keep_in_flight
from aligndistill.chat.label_tokens import label_logprobs
from aligndistill.chat.protocol import Answered, LabelLogprobs, Request, Sampling
from aligndistill.chat.retries import Transient, is_transient, retry_after_seconds, retrying
from aligndistill.chat.usage import total
from aligndistill.config import EndpointModel
from aligndistill.errors import ConfigError, JudgeError
from aligndistill.records import Message, Usage, content_hash, prompt_id

NO_KEY = "none"  # the SDK insists on a key, and would take OPENAI_API_KEY if it got none
TOP_LOGPROBS = (20, 5)  # OpenAI allows 20; servers that allow fewer allow 5
LONGEST_QUOTE = 500  # characters of a server's words in our messages
REFUSED_STATUS = frozenset({400, 413, 422})


@dataclass(frozen=True)
class _Sample:
    request: int
    sample: int
    messages: tuple[Message, ...]


class _Refused(Exception):
    """The server took the request for a bad one (too long, a field it does not know)."""


class EndpointChat:
    """A chat model at a URL; see `ChatModel`.

    Raises:
        ConfigError: the environment variable of the key is not set, or holds what cannot be a key.
    """

    def __init__(self, config: EndpointModel) -> None:
        self._config = config
        self._base_url = config.base_url.rstrip("/")
        self._key = NO_KEY if config.api_key_env is None else _key_from(config.api_key_env)
        self._top_logprobs: tuple[int, ...] = TOP_LOGPROBS  # what to ask for: empty once it is known that none are given
        self.identity = f"endpoint {self._base_url} {config.name}"

    def answer(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Answered]:
        """See `ChatModel`. One HTTP request per sample, since many servers ignore `n`."""

        async def ask(client: openai.AsyncOpenAI, item: _Sample) -> Answered:
            try:
                completion = await self._complete(
                    client,
                    item.messages,
                    temperature=sampling.temperature,
                    max_tokens=sampling.max_new_tokens,
                    seed=_seed(sampling.seed, item.messages, item.sample),
                )
            except _Refused as refusal:
                length = sum(len(message.content) for message in item.messages)
                raise JudgeError(
                    f"{self.identity} refused request {item.request} ({length} characters): {refusal}. "
                    "Shorten the prompts or the candidates if it is too long for the model."
                ) from None
            return Answered(item.request, item.sample, completion.reply())

        items = (_Sample(index, sample, request.messages) for index, request in enumerate(requests) for sample in request.samples)
        yield from keep_in_flight(self._client(), ask, items, self._config.concurrency)

    def label_logprobs(self, conversations: Sequence[tuple[Message, ...]], labels: Sequence[str]) -> Iterator[LabelLogprobs]:
        """See `ChatModel`. A server that gives no log-probabilities is asked once."""

        async def ask(client: openai.AsyncOpenAI, index: int) -> LabelLogprobs:
            probing = self._top_logprobs is TOP_LOGPROBS
            refused = Usage()
            for top_logprobs in self._top_logprobs:
                try:
                    completion = await self._complete(
                        client,
                        conversations[index],
                        temperature=0.0,
                        max_tokens=1,
                        seed=0,
                        logprobs=True,
                        top_logprobs=top_logprobs,
                    )
                except _Refused:
                    refused = total(refused, Usage(calls=1))
                    continue
                tokens = completion.first_position()
                if probing and completion.choices:
                    self._top_logprobs = (top_logprobs,) if tokens else ()
                return LabelLogprobs(index, label_logprobs(tokens, labels) if tokens else None, total(refused, completion.cost()))
            if probing:
                self._top_logprobs = ()
            return LabelLogprobs(index, None, refused)

        # While it is not known what the server gives, one conversation goes ahead of the others.
        indices = range(len(conversations))
        ahead = 1 if self._top_logprobs is TOP_LOGPROBS else 0
        for some, concurrency in ((indices[:ahead], 1), (indices[ahead:], self._config.concurrency)):
            if some:
                yield from keep_in_flight(self._client(), ask, some, concurrency)

    def _client(self) -> openai.AsyncOpenAI:
        client = openai.AsyncOpenAI(base_url=self._base_url, api_key=self._key, max_retries=0, timeout=self._config.timeout_seconds)
        client.organization = client.project = None  # else sent from OPENAI_ORG_ID and OPENAI_PROJECT_ID to a foreign server
        return client

    async def _complete(self, client: openai.AsyncOpenAI, messages: Sequence[Message], **fields: Any) -> Completion:
        """One answer, after as many tries as it takes.

        Raises:
            JudgeError: the server cannot be reached, or refuses for good.
            _Refused: the server refuses this request.
        """
        body = [{"role": message.role, "content": message.content} for message in messages]
        try:
            return await retrying(self._config.max_retries)(self._try, client, body, fields)
        except Transient as failure:
            words = str(failure)
        raise JudgeError(
            f"{self.identity} gave no answer in {self._config.max_retries + 1} tries: {words}. "
            "Check that the server is up and that base_url is right; what was answered so far is kept."
        )

    async def _try(self, client: openai.AsyncOpenAI, body: list[dict[str, str]], fields: dict[str, Any]) -> Completion:
        # The SDK's errors carry the request with its headers: they are turned into ours and let go, not chained.
        try:
            async with asyncio.timeout(self._config.timeout_seconds):
                raw = await client.chat.completions.with_raw_response.create(
                    model=self._config.name,
                    messages=body,  # type: ignore[arg-type]
                    **fields,
                )
            return Completion.model_validate_json(raw.content)
        except ValidationError:
            failure: Exception = Transient(f"what it sent is not a chat completion: {self._quote(raw.text)}")
        except openai.APIStatusError as error:
            failure = self._failure(error)
        except (TimeoutError, openai.APITimeoutError):
            failure = Transient(f"no answer within {self._config.timeout_seconds:g} s")
        except openai.APIConnectionError as error:
            failure = Transient(self._quote(f"{error} {error.__cause__ or ''}"))
        raise failure

    def _failure(self, error: openai.APIStatusError) -> Exception:
        status = error.status_code
        words = f"HTTP {status}: {self._quote(error.response.text)}"
        if is_transient(status, error.code or error.type):
            return Transient(words, retry_after_seconds(error.response.headers.get("retry-after")))
        if status in REFUSED_STATUS:
            return _Refused(words)
        advice = "Check base_url and the model's name."
        if status in (401, 403):
            variable = self._config.api_key_env
            advice = f"Check the key in {variable}." if variable else "Name the variable that holds the key in api_key_env."
        return JudgeError(f"{self.identity} refused: {words}. {advice}")

    def _quote(self, text: str) -> str:
        if self._key != NO_KEY:
            text = text.replace(self._key, "<key>")  # some servers repeat the key that they refuse
        return text.strip()[:LONGEST_QUOTE]


def _key_from(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigError(f"the environment variable {variable} (api_key_env) is not set: export it, or leave api_key_env out.")
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(f"the environment variable {variable} (api_key_env) holds characters that no key can have.")
    return key


def _seed(seed: int, messages: Sequence[Message], sample: int) -> int:
    """31 bits (servers keep seeds in signed words) from what names the answer, whatever else is asked beside it."""
    return int(content_hash(str(seed), prompt_id(messages), str(sample)), 16) & 0x7FFFFFFF
