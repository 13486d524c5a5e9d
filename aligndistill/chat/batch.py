"""Requests and answers as files in the OpenAI batch format, which cloud providers accept at half the price, and `vllm run-batch`.

    request  {"custom_id", "method": "POST", "url": "/v1/chat/completions", "body": {...}}
    answer   {"custom_id", "response": {"status_code", "body"}, "error"}

Answers may be in any order, in several files, and incomplete: they are joined by `custom_id`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from aligndistill.chat.http.thinking import request_body
from aligndistill.chat.http.wire import Completion, label_logprobs
from aligndistill.chat.protocol import Answered, LabelLogprobs, Request, SamplingParams, seed_of
from aligndistill.config.models import EndpointModel
from aligndistill.records import Message, Usage, as_dicts, content_hash, prompt_id

URL = "/v1/chat/completions"
TOP_LOGPROBS = 20


@dataclass(frozen=True)
class Answers:
    """The answers of a batch by `custom_id`, and how many rows have none."""

    completions: Mapping[str, Completion]
    failed: int


def read_answers(rows: Iterable[Mapping[str, Any]]) -> Answers:
    """The answers in these rows. A row with an error, a status other than 200, an invalid body or an answer that the server broke
    off counts as failed."""
    completions: dict[str, Completion] = {}
    failed = 0
    for row in rows:
        response = row.get("response")
        try:
            if row.get("error") or not isinstance(response, Mapping) or response.get("status_code", 200) != 200:
                raise ValueError
            completion = Completion.model_validate(response.get("body"))
            if completion.broken_off:
                raise ValueError
            completions[str(row["custom_id"])] = completion
        except (ValidationError, ValueError, KeyError):
            failed += 1
    return Answers(completions, failed)


@dataclass
class BatchChat:
    """A server whose answers come from a file; see `ChatModel`. Requests without an answer are recorded in `missing`.

    Attributes:
        endpoint: the server.
        seed: of the run; the same question with another seed is a different request.
        logprobs: also request the first token's log-probabilities (servers without support reject such requests).
        missing: `custom_id` -> request, for requests that are not in `completions`.
        used: the ids of the answers that were used.
        identity: the same as `EndpointChat`'s, so that cached verdicts are shared with direct requests.
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
        """See `ChatModel`. One answer has both the log-probabilities and the text; `answer` reads the text."""
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
        """See `ChatModel`, except that missing answers are skipped."""
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
        settings = self.endpoint.identity.removeprefix(f"endpoint {self.endpoint.server}")  # empty without any
        return content_hash(self.endpoint.name + settings, prompt_id(messages), str(sample), str(self.seed))

    def _request(self, identity: str, messages: Sequence[Message], sampling: SamplingParams) -> dict[str, Any]:
        thinks = self.endpoint.thinking == "on"
        fields: dict[str, Any] = {
            "temperature": sampling.temperature,
            "max_tokens": sampling.max_new_tokens + (self.endpoint.thinking_tokens if thinks else 0),
            "seed": seed_of(identity),
        }
        if self.logprobs and not thinks:
            fields |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        written = as_dicts(messages)
        # The server cannot be asked now, so this is the switch that most servers know.
        body = request_body(self.endpoint, written, fields, "chat_template_kwargs" if self.endpoint.thinking == "off" else None)
        return {"custom_id": identity, "method": "POST", "url": URL, "body": body}
