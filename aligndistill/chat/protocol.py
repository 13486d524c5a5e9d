"""What anything that answers a conversation promises, be it a model here, a server far away, or a script in a test."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from aligndistill.records import Finish, Message, Usage


@dataclass(frozen=True)
class Request:
    """A conversation to answer, once for each sample number. The sample number seeds the sampling, so it names the answer."""

    messages: tuple[Message, ...]
    samples: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class SamplingParams:
    """How to answer. Temperature 0 is greedy.

    Attributes:
        answer_schema: the JSON schema of an answer, for servers that can hold a model to one. The others leave it out.
        readable: whether an answer to a request, by its index, says what it should. If not, a server is asked once more.
    """

    temperature: float
    max_new_tokens: int
    seed: int = 0
    answer_schema: Mapping[str, Any] | None = None
    readable: Callable[[int, str], bool] | None = None


UNANSWERED = "no answer in"
"""How the problem of a request begins that failed in every try: the server's fault perhaps, so it is worth asking again."""


@dataclass(frozen=True)
class Reply:
    """One answer: its text, why it ended, what it cost.

    Attributes:
        problem: why this is not the model's answer to the request (it was refused, filtered, never sent); else empty.
    """

    text: str
    finish: Finish
    usage: Usage
    problem: str = ""


@dataclass(frozen=True)
class Answered:
    """A reply as it arrives: the index of its request in the list that was asked, its sample number, the reply."""

    request: int
    sample: int
    reply: Reply


@dataclass(frozen=True)
class LabelLogprobs:
    """How likely each label is to be the answer's first word.

    Attributes:
        request: the index of the conversation in the list that was asked.
        logprobs: one per label in the order asked, nats; None when the model cannot give them: then ask for text.
        usage: what asking cost, also when there are no `logprobs`.
    """

    request: int
    logprobs: tuple[float, ...] | None
    usage: Usage


def seed_of(identity: str) -> int:
    """A request's seed from the hash that names its answer: 31 bits, for servers keep seeds in signed words."""
    return int(identity, 16) & 0x7FFFFFFF


class ChatModel(Protocol):
    """Answers conversations.

    Attributes:
        identity: what the answers depend on besides the request (model, revision, server), as text for cache keys. No secrets.
    """

    identity: str

    def answer(self, requests: Sequence[Request], sampling: SamplingParams) -> Iterator[Answered]:
        """Answers as they are ready, in any order; every (request, sample) comes exactly once.

        Raises:
            JudgeError: when the model cannot be reached or refuses for good.
        """
        ...

    def label_logprobs(self, conversations: Sequence[tuple[Message, ...]], labels: Sequence[str]) -> Iterator[LabelLogprobs]:
        """The log-probabilities of some labels as the answer's first word, for each conversation once, in any order.

        A label that begins another one (`1` and `10`) counts only where the answer does not go on to the longer label.

        Raises:
            JudgeError: when the model cannot be reached or refuses for good.
        """
        ...
