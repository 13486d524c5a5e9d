"""A model that answers piece by piece, as its run samples answers to held-out prompts."""

import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace

from aligndistill.chat.local import split_answer
from aligndistill.errors import ConfigError, DataError
from aligndistill.models.conversation import TRANSCRIPT_STOP, Conversation
from aligndistill.models.load import LanguageModel
from aligndistill.models.sampling import SampleRequest, stream
from aligndistill.records import Message, prompt_id

REPLACEMENT = "\ufffd"
"""What an incomplete character decodes to."""

MAY_OPEN = re.compile(r"\s*[<\[]\S{0,40}")
"""What may become the marker that opens a model's thoughts."""


@dataclass(frozen=True)
class Params:
    """How answers are sampled; temperature 0 is greedy. The same conversation with the same seed has the same answer."""

    temperature: float
    max_new_tokens: int
    seed: int

    def changed(self, text: str) -> "Params":
        """With `temperature=0.7 seed=1`.

        Raises:
            ConfigError: no such parameter, or no such value.
        """
        found = self
        for part in text.split():
            name, _, value = part.partition("=")
            limits = {"temperature": (float, 0.0), "max_new_tokens": (int, 1), "seed": (int, 0)}
            if name not in limits:
                raise ConfigError(f"there is no parameter '{name}'. Give {', '.join(f'{one}=VALUE' for one in limits)}.")
            kind, least = limits[name]
            try:
                number = kind(value)
            except ValueError:
                number = None
            if number is None or not least <= number < float("inf"):
                raise ConfigError(
                    f"{name} must be {'a number' if kind is float else 'an integer'} of at least {least}, not '{value}'."
                )
            found = replace(found, **{name: number})
        return found

    def cut_text(self, may_change: bool) -> str:
        """What is said of an answer that ended at `max_new_tokens`, with what raises it where that can be changed."""
        hint = f": raise it by /params max_new_tokens={2 * self.max_new_tokens}" if may_change else ""
        return f"(cut at {self.max_new_tokens} tokens{hint})"

    def __str__(self) -> str:
        return f"temperature={self.temperature:g} max_new_tokens={self.max_new_tokens} seed={self.seed}"


@dataclass
class Speaker:
    """A model with its conversation so far.

    Attributes:
        system: the text of a system turn in front; empty for none.
        turns: user and assistant turns.
        is_cut: whether the last answer ended at `max_new_tokens` instead of by itself.
    """

    name: str
    language_model: LanguageModel
    system: str = ""
    turns: list[Message] = field(default_factory=list)
    is_cut: bool = False

    @property
    def messages(self) -> tuple[Message, ...]:
        """The whole conversation."""
        return (*([Message(role="system", content=self.system)] if self.system else []), *self.turns)

    def answer(self, text: str, params: Params) -> Generator[str, None, None]:
        """Yields the answer to a user turn in pieces. Once it has ended, or was given up, it is part of the conversation.

        Raises:
            DataError: the conversation is too long for the model, or its template does not accept it.
        """
        asked = (*self.messages, Message(role="user", content=text))
        said, self.is_cut = "", False
        answering = pieces(self.language_model, asked, params)
        try:
            for piece in answering:
                said += piece.text
                self.is_cut = piece.is_cut
                if piece.text:
                    yield piece.text
        finally:
            answering.close()
            if said:
                self.turns += [Message(role="user", content=text), Message(role="assistant", content=said)]


@dataclass(frozen=True)
class AnswerPiece:
    """A part of an answer. The last one, which may be empty, says whether the answer ended at `max_new_tokens`."""

    text: str
    is_cut: bool = False


def pieces(language_model: LanguageModel, messages: Sequence[Message], params: Params) -> Generator[AnswerPiece, None, None]:
    """Yields the answer to a conversation in pieces, without the model's thoughts.

    Raises:
        DataError: the conversation and `max_new_tokens` exceed the model's positions.
    """
    conversation = language_model.conversation
    prompt = conversation.prompt_ids(messages)
    positions = language_model.max_positions
    if positions is not None and len(prompt) + params.max_new_tokens > positions:
        raise DataError(
            f"the conversation has {len(prompt)} tokens, and with max_new_tokens={params.max_new_tokens} more it exceeds the "
            f"{positions} positions of the model. Begin again with /reset, or lower it with /params max_new_tokens=N."
        )
    request = SampleRequest(prompt, prompt_id(messages), (0,))
    ids: list[int] = []
    shown, has_ended = "", False
    for token in stream(
        language_model, request, temperature=params.temperature, max_new_tokens=params.max_new_tokens, seed=params.seed
    ):
        ids.append(token)
        certain = _certain(conversation, split_answer(conversation, prompt, ids).answer)
        if certain.startswith(shown) and len(certain) > len(shown):
            yield AnswerPiece(certain[len(shown) :])
            shown = certain
        has_ended = token in conversation.eos_ids or conversation.stops_inside(conversation.tokenizer.decode(ids))
        if has_ended:
            break
    whole = split_answer(conversation, prompt, ids).answer
    yield AnswerPiece(whole[len(shown) :], is_cut=not has_ended)


def _certain(conversation: Conversation, text: str) -> str:
    """The part of an unfinished answer that further tokens do not change."""
    text = text.rstrip(REPLACEMENT)
    if conversation.layout == "chat" and MAY_OPEN.fullmatch(text):
        return ""
    if conversation.layout == "transcript":  # what may become the next human turn is no part of the answer
        for length in range(len(TRANSCRIPT_STOP) - 1, 0, -1):
            if text.endswith(TRANSCRIPT_STOP[:length]):
                return text[:-length]
    return text
