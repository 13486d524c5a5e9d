"""What flows on disk, one JSON line each: prompts, candidates, verdicts, rankings, answers.

Records are frozen. Ids are hashes of content, so the same text has the same id in every run and on every machine.
"""

import hashlib
from collections.abc import Sequence
from typing import Annotated, Literal

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
