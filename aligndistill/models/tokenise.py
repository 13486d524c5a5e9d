"""Tokenises records into token groups within the model's positions. Dropped prompts and truncated responses are counted."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from aligndistill.models.conversation import Conversation
from aligndistill.models.groups import TokenGroup
from aligndistill.records import Finish, Message


@dataclass(frozen=True)
class Limits:
    """The most tokens of prompts and responses. `positions` is the model's limit on both together."""

    prompt: int
    response: int
    positions: int | None


def shared_positions(*limits: int | None) -> int | None:
    """The longest rows that several models can read, by each one's limit; None if none is known."""
    return min((limit for limit in limits if limit is not None), default=None)


@dataclass
class Tokenised:
    """Groups, the place of each in the input, and the numbers of dropped prompts and truncated responses."""

    groups: list[TokenGroup] = field(default_factory=list)
    indices: list[int] = field(default_factory=list)
    too_long: int = 0
    responses_cut: int = 0


@dataclass(frozen=True)
class PromptWithResponses:
    """A prompt with the texts of its responses, and how each ended."""

    messages: tuple[Message, ...]
    texts: Sequence[str]
    finishes: Sequence[Finish]


@dataclass(frozen=True)
class TokenisedOne:
    """A prompt with its responses, and the number of truncated ones."""

    group: TokenGroup
    responses_cut: int


def tokenise_one(conversation: Conversation, exchange: PromptWithResponses, limits: Limits) -> TokenisedOne | None:
    """Tokenise a prompt with its responses; None if the prompt is over its limit, because a truncated prompt is a different prompt.

    A response over its limit is truncated and has no end token.
    """
    prompt = conversation.prompt_ids(exchange.messages)
    limit = limits.response if limits.positions is None else min(limits.response, limits.positions - len(prompt))
    if len(prompt) > limits.prompt or limit < 1:
        return None
    responses = [
        conversation.response_ids(text, finished=finish == "stop")
        for text, finish in zip(exchange.texts, exchange.finishes, strict=True)
    ]
    cut = sum(len(ids) > limit for ids in responses)
    return TokenisedOne(TokenGroup(prompt, [ids[:limit] for ids in responses]), cut)


def tokenise(conversation: Conversation, exchanges: Iterable[PromptWithResponses], limits: Limits) -> Tokenised:
    """Tokenise each with `tokenise_one`; dropped prompts are counted."""
    result = Tokenised()
    for index, exchange in enumerate(exchanges):
        one = tokenise_one(conversation, exchange, limits)
        if one is None:
            result.too_long += 1
            continue
        result.groups.append(one.group)
        result.indices.append(index)
        result.responses_cut += one.responses_cut
    return result
