"""What flows on disk, one JSON line each: prompts, candidates, verdicts, rankings, answers.

Records are frozen. Ids are hashes of content, so the same text has the same id in every run and on every machine.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Split = Literal["train", "held_out"]
Finish = Literal["stop", "length"]
Outcome = Literal["first", "second", "tie", "unparsed"]
CanaryKind = Literal["empty", "echo", "constant", "truncated", "other_prompt"]


class Record(BaseModel):
    """One line of a JSONL file."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Message(Record):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class Prompt(Record):
    """A conversation that waits for an answer.

    Attributes:
        id: hash of the messages (see `prompt_id`).
        messages: the turns; the last one is the user's.
        source: where it was read (file and row, or data set), for error messages and provenance.
        split: `train` or `held_out`, decided by the id alone, so it never moves when data grows.
    """

    id: str
    messages: tuple[Message, ...]
    source: str
    split: Split


class Candidate(Record):
    """One answer to a prompt.

    Attributes:
        author: which configured model wrote it (`start`, `teacher`, ...), or what the data said.
        finish: `stop` when the model ended it by itself, `length` when it was cut.
    """

    id: str
    prompt_id: str
    text: str
    author: str
    finish: Finish = "stop"


class Usage(Record):
    """What one call to a judge cost, in calls and tokens."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Comparison(Record):
    """A judge's verdict on two candidates, shown in this order. Asking both orders gives two of these.

    Attributes:
        first, second: candidate ids in the order in which the judge saw them.
        probability_first: P(first is better) in [0, 1] where the judge gives one, else None.
        outcome: the verdict in words. `unparsed` means the reply could not be read: never a tie, never a score.
        reply: the judge's raw reply, when there is one.
        members: the verdicts that this one was put together from, where a panel gave it; nobody was shown an order then.
    """

    kind: Literal["comparison"] = "comparison"
    prompt_id: str
    first: str
    second: str
    probability_first: float | None
    outcome: Outcome
    judge: str
    reply: str | None = None
    usage: Usage = Usage()
    members: tuple["Verdict", ...] = ()


class Grade(Record):
    """A judge's grade of one candidate; `value` is None when the reply could not be read. Higher is better."""

    kind: Literal["grade"] = "grade"
    prompt_id: str
    candidate: str
    value: float | None
    judge: str
    reply: str | None = None
    usage: Usage = Usage()


Verdict = Annotated[Comparison | Grade, Field(discriminator="kind")]

Comparison.model_rebuild()

PROBABILITY_OF: Mapping[Outcome, float | None] = {"first": 1.0, "tie": 0.5, "second": 0.0, "unparsed": None}


def probability_first(comparison: Comparison) -> float | None:
    """P(first is better): the judge's where it gave one, else 1, 0.5 or 0 by its verdict; None for an unparsed reply."""
    if comparison.outcome == "unparsed" or comparison.probability_first is None:
        return PROBABILITY_OF[comparison.outcome]
    return comparison.probability_first


def outcome_of(probability: float | None) -> Outcome:
    """The verdict in words, from P(first is better); `unparsed` where there is none."""
    if probability is None:
        return "unparsed"
    return "first" if probability > 0.5 else "second" if probability < 0.5 else "tie"


def is_unparsed(verdict: Verdict) -> bool:
    """Whether the judge's reply could not be read."""
    return verdict.value is None if isinstance(verdict, Grade) else verdict.outcome == "unparsed"


class _OfPrompt(Protocol):
    @property
    def prompt_id(self) -> str: ...


P = TypeVar("P", bound=_OfPrompt)


def group_by_prompt(records: Iterable[P]) -> defaultdict[str, list[P]]:
    """Prompt id -> its records, in their order; none for a prompt that has none."""
    grouped: defaultdict[str, list[P]] = defaultdict(list)
    for record in records:
        grouped[record.prompt_id].append(record)
    return grouped


class Canary(Record):
    """A known-bad answer, judged beside a candidate to see whether the judge is taken in. Nothing is trained on it.

    Attributes:
        prompt_id: the prompt's; the verdicts carry an id of their own, so that they are never taken for labels.
        verdicts: on `bad` and `reference` alone.
    """

    prompt_id: str
    kind: CanaryKind
    bad: Candidate
    reference: Candidate
    verdicts: tuple[Verdict, ...]


class Response(Record):
    """One ranked answer. Differences of `score` are on the logit scale: P(i beats j) = sigmoid(score_i - score_j)."""

    text: str
    score: float
    candidate_id: str
    author: str = "unknown"
    finish: Finish = "stop"


class Ranking(Record):
    """Answers to one prompt, best first. A pair is a ranking of two."""

    prompt_id: str
    split: Split
    messages: tuple[Message, ...]
    responses: tuple[Response, ...]


class Demonstration(Record):
    """A prompt with an answer to imitate."""

    prompt_id: str
    split: Split
    messages: tuple[Message, ...]
    response: str


class Answer(Record):
    """What a model wrote for a held-out prompt when it was evaluated.

    Attributes:
        author: the model under evaluation (`start`, `teacher`, or a student's name).
        length_tokens: tokens of the response by its author's tokenizer, the end token included.
        kl_nats: KL(author || start) summed over the response's positions, nats; None where there is no reference.
    """

    prompt_id: str
    author: str
    text: str
    finish: Finish
    length_tokens: int
    kl_nats: float | None = None


def content_hash(*parts: str) -> str:
    """A 16-digit hash of some texts, which cannot run into each other (each is preceded by its length)."""
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(f"{len(encoded)}:".encode())
        digest.update(encoded)
    return digest.hexdigest()[:16]


def prompt_id(messages: Sequence[Message]) -> str:
    """The id of a prompt: the hash of its messages' roles and contents."""
    return content_hash(*(text for message in messages for text in (message.role, message.content)))


def candidate_id(prompt: str, author: str, text: str) -> str:
    """The id of a candidate: the hash of its prompt's id, its author and its text."""
    return content_hash(prompt, author, text)


def plain_prompt(messages: Sequence[Message]) -> str:
    """A prompt as one text, as user functions get it: a lone user turn as it is, anything longer with role names."""
    if len(messages) == 1:
        return messages[0].content
    return "\n\n".join(f"{message.role.capitalize()}: {message.content}" for message in messages)


def total(*usages: Usage) -> Usage:
    """The sum of what several calls cost."""
    return Usage(
        calls=sum(usage.calls for usage in usages),
        prompt_tokens=sum(usage.prompt_tokens for usage in usages),
        completion_tokens=sum(usage.completion_tokens for usage in usages),
    )
