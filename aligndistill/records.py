"""The records stored on disk as JSON lines: prompts, candidates, verdicts, rankings, answers.

Records are immutable. Ids are hashes of content, so the same text has the same id in every run and on every machine.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
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


def as_dicts(messages: Iterable[Message]) -> list[dict[str, str]]:
    """Messages in the form that other tools and servers read: `{"role": ..., "content": ...}` each."""
    return [{"role": one.role, "content": one.content} for one in messages]


class Lineage(Record):
    """Where a prompt that a model wrote comes from. Ids are those of prompts.

    Attributes:
        root: the first of its line: a prompt of the user's data, or itself if it was written from a topic or from nothing.
        parent: the prompt that it was made from, or, of several examples that its author saw, the most similar one; None if there
            was none.
        operation: how it was made (`expand`, `constraints`, ...).
        author: the configured model that wrote it.
        topic: what it was to be about, if that was given.
    """

    root: str
    parent: str | None
    operation: str
    author: str
    topic: str = Field(default="", exclude_if=lambda topic: not topic)


class Prompt(Record):
    """A conversation to be answered.

    Attributes:
        id: hash of the messages (see `prompt_id`).
        messages: the turns; the last one is a user turn.
        source: where it was read from (file and row, or data set), for error messages and provenance.
        split: `train` or `held_out`: that of its root, determined by the root's id alone, so it does not change when data is added.
            Models are shown training prompts only, so whatever they write in a run is for training.
        lineage: of a prompt that a model wrote; None for the user's own, which are their own roots.
        context: passages for the model that labels or revises, such as retrieved ones. No part of the prompt: neither its id nor
            any other model's conversation has it.
    """

    id: str
    messages: tuple[Message, ...]
    source: str
    split: Split
    lineage: Lineage | None = Field(default=None, exclude_if=lambda lineage: lineage is None)
    context: str = Field(default="", exclude_if=lambda text: not text)

    @property
    def root(self) -> str:
        """The id of the first prompt of its line; its own, if no model wrote it."""
        return self.lineage.root if self.lineage is not None else self.id


class Candidate(Record):
    """A candidate: one answer to a prompt, to be judged.

    Attributes:
        author: the configured model that wrote it (`start`, `teacher`, ...), or the author given in the data.
        finish: `stop` if the model ended it, `length` if it was truncated.
        thoughts: what its author thought before it answered; no part of the text, and never shown to a judge.
        samples: how many of its author's answers had this text.
        revises: of a revision, the id of the answer that it was made from.
    """

    id: str
    prompt_id: str
    text: str
    author: str
    finish: Finish = "stop"
    thoughts: str = Field(default="", exclude_if=lambda text: not text)
    samples: int = Field(default=1, exclude_if=lambda samples: samples == 1)
    revises: str = Field(default="", exclude_if=lambda revised: not revised)


class Usage(Record):
    """The cost of calls to a judge, in calls and tokens.

    Attributes:
        cached: how many of the calls were made before, their replies read from the cache. Not stored: no verdict depends on it.
    """

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached: int = Field(default=0, exclude=True)


class Comparison(Record):
    """A verdict on two candidates shown in this order. Asking in both orders gives two comparisons.

    Attributes:
        first, second: candidate ids in the order shown to the judge.
        probability_first: P(first is better) in [0, 1] if the judge gives one, else None.
        outcome: the verdict as a label. `unparsed` means that the reply could not be parsed; it is not a tie.
        reply: the judge's raw reply, if there is one, without its thoughts.
        thoughts: what the judge thought before it answered; never parsed.
        label_mass: if the verdict was read from log-probabilities: the probability of all labels together as the first token.
        members: for a panel, the members' verdicts that were combined; `first` and `second` are then not an order shown to a judge.
    """

    kind: Literal["comparison"] = "comparison"
    prompt_id: str
    first: str
    second: str
    probability_first: float | None
    outcome: Outcome
    judge: str
    reply: str | None = None
    thoughts: str = ""
    label_mass: float | None = None
    usage: Usage = Usage()
    members: tuple["Verdict", ...] = ()


class Grade(Record):
    """A judge's grade of one candidate; `value` is None if the reply could not be parsed. Higher is better."""

    kind: Literal["grade"] = "grade"
    prompt_id: str
    candidate: str
    value: float | None
    judge: str
    reply: str | None = None
    thoughts: str = ""
    label_mass: float | None = None
    usage: Usage = Usage()


Verdict = Annotated[Comparison | Grade, Field(discriminator="kind")]

Comparison.model_rebuild()

PROBABILITY_OF: Mapping[Outcome, float | None] = {"first": 1.0, "tie": 0.5, "second": 0.0, "unparsed": None}


def probability_first(comparison: Comparison) -> float | None:
    """P(first is better): the judge's probability if given, else 1, 0.5 or 0 by its outcome; None for an unparsed reply."""
    if comparison.outcome == "unparsed" or comparison.probability_first is None:
        return PROBABILITY_OF[comparison.outcome]
    return comparison.probability_first


def outcome_of(probability: float | None) -> Outcome:
    """The outcome for P(first is better); `unparsed` for None."""
    if probability is None:
        return "unparsed"
    return "first" if probability > 0.5 else "second" if probability < 0.5 else "tie"


def is_unparsed(verdict: Verdict) -> bool:
    """Whether the judge's reply could not be parsed."""
    return verdict.value is None if isinstance(verdict, Grade) else verdict.outcome == "unparsed"


class _OfPrompt(Protocol):
    @property
    def prompt_id(self) -> str: ...


P = TypeVar("P", bound=_OfPrompt)


def group_by_prompt(records: Iterable[P]) -> defaultdict[str, list[P]]:
    """Prompt id -> its records, in order; an empty list for an unknown prompt."""
    grouped: defaultdict[str, list[P]] = defaultdict(list)
    for record in records:
        grouped[record.prompt_id].append(record)
    return grouped


def in_step(prompts: Iterable[Prompt], records: Iterable[P]) -> Iterator[tuple[Prompt, list[P]]]:
    """Each prompt with its records, which come in the order of the prompts: one prompt's are in memory at a time."""
    groups = groupby(records, key=lambda record: record.prompt_id)
    identity, following = next(groups, (None, iter(())))
    for prompt in prompts:
        if prompt.id != identity:
            yield prompt, []
            continue
        yield prompt, list(following)
        identity, following = next(groups, (None, iter(())))
    assert identity is None, f"the records of the prompt {identity} are not in the order of the prompts"


class Canary(Record):
    """A canary: a known-bad control answer, judged against a candidate to test the judge. Nothing is trained on it.

    Attributes:
        prompt_id: the prompt's id; the verdicts have a different one, so that they cannot be used as labels.
        verdicts: on `bad` and `reference` only.
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
    """A ranking: answers to one prompt, best first. A pair is a ranking of two."""

    prompt_id: str
    split: Split
    messages: tuple[Message, ...]
    responses: tuple[Response, ...]


class Demonstration(Record):
    """A prompt with an answer, for supervised fine-tuning.

    Attributes:
        rationale: the part of the response that gives the reasons, if a model was asked to write one before its answer.
        task: what the response is: an answer, or the reasons for one as a task of its own.
        author: the model that wrote the response, if one did in this run.
    """

    prompt_id: str
    split: Split
    messages: tuple[Message, ...]
    response: str
    rationale: str = Field(default="", exclude_if=lambda text: not text)
    task: Literal["answer", "rationale"] = Field(default="answer", exclude_if=lambda task: task == "answer")
    author: str = Field(default="", exclude_if=lambda text: not text)


class Dropped(Record):
    """A row that a filter, or a rule of elicitation, left out.

    Attributes:
        id: of the prompt, ranking or demonstration; the hash of the text where it had not become one.
        reason: why; the same text for all rows with this reason, which are counted by it.
        nearest: the id of the record that it repeats or contains, if that is the reason.
        score: the measured number that was outside the limit.
        text: what was dropped.
    """

    id: str
    reason: str
    nearest: str | None = None
    score: float | None = None
    text: str


class Answer(Record):
    """A model's answer to a held-out prompt, sampled for the evaluation.

    Attributes:
        author: the model under evaluation (`start`, `teacher`, or a student's name).
        length_tokens: tokens of the response by its author's tokenizer, including the end token.
        kl_nats: KL(author || start) summed over the response's positions, nats; None if there is no reference.
    """

    prompt_id: str
    author: str
    text: str
    finish: Finish
    length_tokens: int
    kl_nats: float | None = None


def content_hash(*parts: str) -> str:
    """A hash of texts, 16 hex digits. Each text is preceded by its length, so `("ab", "c")` and `("a", "bc")` differ."""
    encoded = [part.encode("utf-8", "surrogatepass") for part in parts]
    return hashlib.sha256(b"".join([b"%d:%b" % (len(one), one) for one in encoded])).hexdigest()[:16]


def prompt_id(messages: Sequence[Message]) -> str:
    """The id of a prompt: the hash of its messages' roles and contents."""
    return content_hash(*(text for message in messages for text in (message.role, message.content)))


def candidate_id(prompt: str, author: str, text: str) -> str:
    """The id of a candidate: the hash of its prompt's id, its author and its text."""
    return content_hash(prompt, author, text)


def plain_prompt(messages: Sequence[Message]) -> str:
    """A prompt as one text, as passed to user functions: a single turn unchanged, several turns with role names."""
    if len(messages) == 1:
        return messages[0].content
    return "\n\n".join(f"{message.role.capitalize()}: {message.content}" for message in messages)


def total(*usages: Usage) -> Usage:
    """The sum of several usages."""
    return Usage(**{name: sum(getattr(usage, name) for usage in usages) for name in Usage.model_fields})
