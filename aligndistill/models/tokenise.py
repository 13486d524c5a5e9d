"""Records to token groups, within the model's positions; what does not fit is named, never silently bent."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from aligndistill.models.conversation import Conversation
from aligndistill.models.groups import TokenGroup
from aligndistill.records import Finish, Message


@dataclass(frozen=True)
class Limits:
    """How long prompts and responses may be, in tokens. `positions` is the model's own limit on both together."""

    prompt: int
    response: int
    positions: int | None


@dataclass
class Tokenised:
    """Groups, the place of each in what was given, and what happened on the way."""

    groups: list[TokenGroup] = field(default_factory=list)
    indices: list[int] = field(default_factory=list)
    too_long: int = 0
    responses_cut: int = 0


@dataclass(frozen=True)
class PromptWithResponses:
    """A prompt with texts that answer it, and how each ended."""

    messages: tuple[Message, ...]
    texts: Sequence[str]
    finishes: Sequence[Finish]


@dataclass(frozen=True)
class TokenisedOne:
    """A prompt with its responses, and how many of those were cut."""

    group: TokenGroup
    responses_cut: int


def tokenise_one(conversation: Conversation, exchange: PromptWithResponses, limits: Limits) -> TokenisedOne | None:
    """Tokenise a prompt with its responses; None where the prompt is over its limit: half a question is another question.

    A response over its limit is cut and has no end token, as if its author had been stopped there.
    """
    prompt = conversation.prompt_ids(exchange.messages)
    room = limits.response if limits.positions is None else min(limits.response, limits.positions - len(prompt))
    if len(prompt) > limits.prompt or room < 1:
        return None
    responses = [
        conversation.response_ids(text, finished=finish == "stop")
        for text, finish in zip(exchange.texts, exchange.finishes, strict=True)
    ]
    cut = sum(len(ids) > room for ids in responses)
    return TokenisedOne(TokenGroup(prompt, [ids[:room] for ids in responses]), cut)


def tokenise(conversation: Conversation, exchanges: Iterable[PromptWithResponses], limits: Limits) -> Tokenised:
    """`tokenise_one` of each; prompts that are left out are counted."""
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
