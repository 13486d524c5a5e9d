"""Replies to a judge's question: log-probabilities of the labels, or texts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from aligndistill.records import Record, Usage, total

LEAST_LABEL_MASS = 0.1
"""With less probability on all labels together, the first token is not a verdict, and the ratio of the labels says nothing: a model
that begins with thoughts leaves 1e-7 for them."""


class JudgeReply(Record):
    """One reply: log-probabilities of the labels (nats) or a text, and what it cost. Thoughts are kept, and never parsed."""

    label_logprobs: tuple[float, ...] | None
    reply: str | None
    usage: Usage
    thoughts: str = ""

    @property
    def label_mass(self) -> float | None:
        """The probability of all labels together as the first token; None for a text."""
        return None if self.label_logprobs is None else mass_of(self.label_logprobs)


@dataclass(frozen=True)
class JudgeReplies:
    """All replies to one question: log-probabilities of the labels (nats), or one or more texts."""

    label_logprobs: tuple[float, ...] | None
    replies: tuple[str, ...]
    usage: Usage
    thoughts: str = ""

    @property
    def label_mass(self) -> float | None:
        """See `JudgeReply`."""
        return None if self.label_logprobs is None else mass_of(self.label_logprobs)

    @property
    def shown(self) -> str | None:
        """The replies as one text, as stored with the verdict."""
        if len(self.replies) <= 1:
            return self.replies[0] if self.replies else None
        return "\n".join(f"[reply {number}] {reply}" for number, reply in enumerate(self.replies, start=1))


def cached_reply(value: Any) -> JudgeReply | None:
    """The reply in a cache entry; None if there is no entry, or not a valid one."""
    try:
        return JudgeReply.model_validate(value)
    except ValidationError:
        return None


def combined(replies: Mapping[int, JudgeReply]) -> JudgeReplies:
    """All samples of a question, by number; log-probabilities, if one has them."""
    for judge_reply in replies.values():
        if judge_reply.label_logprobs is not None:
            return JudgeReplies(judge_reply.label_logprobs, (), judge_reply.usage)
    in_order = [replies[sample] for sample in sorted(replies)]
    texts = tuple(judge_reply.reply for judge_reply in in_order if judge_reply.reply is not None)
    thoughts = "\n".join(judge_reply.thoughts for judge_reply in in_order if judge_reply.thoughts)
    return JudgeReplies(None, texts, total(*(judge_reply.usage for judge_reply in in_order)), thoughts)


def mass_of(logprobs: Sequence[float]) -> float:
    """The probability of all labels together, from their log-probabilities, nats."""
    return math.fsum(map(math.exp, logprobs))
