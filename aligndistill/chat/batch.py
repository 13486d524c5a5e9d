"""Requests and answers as files: the OpenAI batch form, which cloud providers take at half the price and vLLM's `run-batch` reads.

    request  {"custom_id", "method": "POST", "url": "/v1/chat/completions", "body": {...}}
    answer   {"custom_id", "response": {"status_code", "body"}, "error"}

Answers may come in any order, in several files, and not all of them: they are joined by `custom_id` alone.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from aligndistill.chat.http.wire import Completion, label_logprobs
from aligndistill.chat.protocol import Answered, LabelLogprobs, Request, SamplingParams, seed_of
from aligndistill.config.models import EndpointModel
from aligndistill.records import Message, Usage, content_hash, prompt_id

URL = "/v1/chat/completions"
TOP_LOGPROBS = 20


@dataclass(frozen=True)
class Answers:
    """What a batch came back with: by `custom_id`, and how many rows hold no answer."""

    completions: Mapping[str, Completion]
    failed: int


def read_answers(rows: Iterable[Mapping[str, Any]]) -> Answers:
    """The answers in some rows. A row with an error, another status than 200, or a body that is none counts as failed."""
    completions: dict[str, Completion] = {}
    failed = 0
    for row in rows:
        response = row.get("response")
        try:
            if row.get("error") or not isinstance(response, Mapping) or response.get("status_code", 200) != 200:
                raise ValueError
            completions[str(row["custom_id"])] = Completion.model_validate(response.get("body"))
        except (ValidationError, ValueError, KeyError):
            failed += 1
    return Answers(completions, failed)


@dataclass
class BatchChat:
    """A server whose answers come as a file; see `ChatModel`. What has no answer is noted and not answered.

    Attributes:
        endpoint: the server.
        seed: of the run: the same question asked with another seed is another request.
        logprobs: ask for the first token's log-probabilities beside the text (servers that refuse them refuse the request).
        missing: `custom_id` -> request, for what was asked and is not in `completions`.
        used: the ids of the answers that were asked for.
        identity: that of `EndpointChat`, so that verdicts are kept as if the server had been asked directly.
    """

    endpoint: EndpointModel
    seed: int
    logprobs: bool
    completions: Mapping[str, Completion]
    missing: dict[str, dict[str, Any]] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    identity: str = field(init=False)

    def __post_init__(self) -> None:
        self.identity = self.endpoint.identity

    def label_logprobs(self, conversations: Sequence[tuple[Message, ...]], labels: Sequence[str]) -> Iterator[LabelLogprobs]:
        """See `ChatModel`. One answer holds both the log-probabilities and the text, which is looked at next."""
        for index, messages in enumerate(conversations):
            identity = self._id(messages, 0)
            completion = self.completions.get(identity)
            tokens = completion.first_position() if completion else None
            found = label_logprobs(tokens, labels) if tokens else None
            if completion is None or found is None:
                yield LabelLogprobs(index, None, Usage())
            else:
                self.used.add(identity)
                yield LabelLogprobs(index, found, completion.cost())

    def answer(self, requests: Sequence[Request], sampling: SamplingParams) -> Iterator[Answered]:
        """See `ChatModel`, but for answers that are not there."""
        for index, request in enumerate(requests):
            for sample in request.samples:
                identity = self._id(request.messages, sample)
                completion = self.completions.get(identity)
                if completion is None:
                    self.missing[identity] = self._request(identity, request.messages, sampling)
                else:
                    self.used.add(identity)
                    yield Answered(index, sample, completion.reply())

    def _id(self, messages: Sequence[Message], sample: int) -> str:
        return content_hash(self.endpoint.name, prompt_id(messages), str(sample), str(self.seed))

    def _request(self, identity: str, messages: Sequence[Message], sampling: SamplingParams) -> dict[str, Any]:
        body = {
            "model": self.endpoint.name,
            "messages": [{"role": message.role, "content": message.content} for message in messages],
            "temperature": sampling.temperature,
            "max_tokens": sampling.max_new_tokens,
            "seed": seed_of(identity),
        }
        if self.logprobs:
            body |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        return {"custom_id": identity, "method": "POST", "url": URL, "body": body}
