"""What a step asks of a model, and what it gets."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from aligndistill.chat.protocol import Reply
from aligndistill.records import Message


@dataclass(frozen=True)
class AuthorRequest:
    """A conversation to be answered by one of the run's models.

    Attributes:
        author: the model's name.
        messages: none for magpie, where the model writes the user's turn itself.
        sample: a number that tells equal conversations apart.
    """

    author: str
    messages: tuple[Message, ...]
    sample: int = 0


class Ask(Protocol):
    """Asks models. Replies that are known already are not asked for again."""

    def __call__(
        self, questions: Sequence[AuthorRequest], *, temperature: float, max_new_tokens: int, note: str = "", later: int = 0
    ) -> list[Reply]:
        """The reply to each question, in order.

        Args:
            note: of the step's progress, shown beside the count.
            later: about how many questions will follow.
        """
        ...


def user(text: str) -> tuple[Message, ...]:
    """A conversation of one turn."""
    return (Message(role="user", content=text),)


_NUMBERED = re.compile(r"^(\s*)(?:[>#]\s*|\*\*|__)?(\d{1,4})[.):\u3001\uff0e\uff1a\uff09](?:\*\*|__)?\s*(.*)$")
_BULLET = re.compile(r"^\s{0,3}[-*\u2022]\s+(.*)$")
_LABEL = re.compile(
    r"^(?:\*\*)?(?:#+\s*)?(?:new |rewritten |evolved )?(?:prompt|task|instruction|question|request)(?: \d+)?\s*:(?:\*\*)?\s*", re.I
)
_QUOTES = (('"', '"'), ("\u201c", "\u201d"), ("`", "`"), ("**", "**"))


def listed(reply: str) -> list[str]:
    """The items of a numbered list in a reply, or else of a list with bullets; none if it has no list.

    Numbers must follow one another and be indented no further than the first one, so that a list inside an item is part of it. Text
    before the first item is no item.
    """
    return [plain(item) for item in _items(reply)]


def _items(reply: str) -> Iterator[str]:
    expected: int | None = None
    indent = 0
    item: list[str] = []
    for line in reply.splitlines():
        found = _NUMBERED.match(line)
        if found and (expected is None or (int(found[2]) == expected and len(found[1]) <= indent)):
            if item:
                yield "\n".join(item)
            indent = len(found[1]) if expected is None else indent
            item, expected = [found[3]], int(found[2]) + 1
        elif expected is not None:
            item.append(line)
    if item:
        yield "\n".join(item)
    elif expected is None:
        yield from (found[1] for line in reply.splitlines() if (found := _BULLET.match(line)))


def plain(text: str) -> str:
    """A prompt without what models put around one: a label such as `Prompt:`, quotation marks, blank lines."""
    text = _LABEL.sub("", text.strip()).strip()
    for opening, closing in _QUOTES:
        inside = text.removeprefix(opening).removesuffix(closing)
        if len(text) == len(opening + inside + closing) and opening not in inside and closing not in inside:
            text = inside.strip()
    return text
