"""The interface of chat models: local models, servers, and scripts for tests."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from aligndistill.records import Finish, Message, Usage


@dataclass(frozen=True)
class Request:
    """A conversation to answer, once per sample number. The sample number is part of the sampling seed."""

    messages: tuple[Message, ...]
    samples: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class SamplingParams:
    """Sampling parameters. Temperature 0 is greedy.

    Attributes:
        answer_schema: the JSON schema of an answer, for servers with structured output; ignored by others.
        readable: whether a text is a usable answer to the request with this index. If not, servers are asked once more.
    """

    temperature: float
    max_new_tokens: int
    seed: int = 0
    answer_schema: Mapping[str, Any] | None = None
    readable: Callable[[int, str], bool] | None = None


UNANSWERED = "no reply after"
"""The start of `Reply.problem` for a request that failed in every attempt; such a request is worth repeating in a later run."""

CUT_IN_THOUGHTS = "the reply was cut off inside its thoughts"
"""The start of `Reply.problem` for a reply that reached its limit before the answer began."""

NO_ANSWER = "thoughts without an answer"
"""`Reply.problem` for a reply that the model ended behind its thoughts."""


@dataclass(frozen=True)
class Reply:
    """One answer: its text, its finish reason and its cost.

    Attributes:
        text: the answer, without thoughts.
        problem: why this is not an answer of the model (rejected, filtered, not sent); empty if it is.
        thoughts: what the model wrote before its answer, if it thinks; `text` is empty if the reply ended inside them.
        time: when it was received, UTC; set where replies are stored, else None.
    """

    text: str
    finish: Finish
    usage: Usage
    problem: str = ""
    thoughts: str = ""
    time: str | None = None


@dataclass(frozen=True)
class Answered:
    """A reply, with the index of its request and its sample number."""

    request: int
    sample: int
    reply: Reply


@dataclass(frozen=True)
class LabelLogprobs:
    """The probability of each label as the first word of the answer.

    Attributes:
        request: the index of the conversation.
        logprobs: one per label, in order, nats; None if the model does not give them: then request text.
        usage: the cost of the request, also without `logprobs`.
    """

    request: int
    logprobs: tuple[float, ...] | None
    usage: Usage


def seed_of(identity: str) -> int:
    """A request's seed, from the hash that identifies its answer: 31 bits, because servers store seeds as signed integers."""
    return int(identity, 16) & 0x7FFFFFFF


class ChatModel(Protocol):
    """A chat model.

    Attributes:
        identity: the model, revision and server, as text for cache keys. Must not contain secrets.
    """

    identity: str

    def answer(self, requests: Sequence[Request], sampling: SamplingParams) -> Iterator[Answered]:
        """Yields answers as they arrive, in any order; every (request, sample) exactly once.

        Raises:
            JudgeError: the model cannot be reached, or rejects all requests.
        """
        ...

    def label_logprobs(self, conversations: Sequence[tuple[Message, ...]], labels: Sequence[str]) -> Iterator[LabelLogprobs]:
        """The log-probabilities of labels as the answer's first word, once per conversation, in any order.

        The probability of a label that is a prefix of another one (`1` and `10`) does not include that of the longer label.

        Raises:
            JudgeError: the model cannot be reached, or rejects all requests.
        """
        ...
