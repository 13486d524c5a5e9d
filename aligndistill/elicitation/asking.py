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


_NUMBERED = re.compile(
    r"^(?P<indent>\s*)(?P<mark>[>#]*)\s*(?P<bold>\*\*|__)?(?P<number>\d{1,4})[.):\u3001\uff0e\uff1a\uff09](?P<closed>(?P=bold))?\s*"
    r"(?P<text>.*)$"
)
_BULLET = re.compile(r"^\s{0,3}[-*\u2022]\s+(.*)$")
_LABEL = re.compile(
    r"^(?:\*\*)?(?:#+\s*)?(?:new |rewritten |evolved )?(?:prompt|task|instruction|question|request)(?: \d+)?\s*:(?:\*\*)?\s*", re.I
)
_QUOTES = (('"', '"'), ("\u201c", "\u201d"), ("`", "`"), ("**", "**"), ("__", "__"))
_RULE = re.compile(r"\s*(?:-{3,}|\*{3,}|(?:[-*] ){2,}[-*])\s*")
_PROSE = re.compile(r"(?<=[^\s:\uff1a])[ \t]*\n\s*\n(?!\s|```|[-*\u2022]\s|[>|])")
"""Before a paragraph that is neither indented nor code, a list, a quotation or a table, and that no colon announces."""


def listed(reply: str) -> list[str]:
    """The items of a numbered list in a reply, or else of a list with bullets; none if it has no list.

    Numbers must follow one another, behind the same `#` or `>` as the first one and indented no further, so that a list inside an
    item is part of it. Text before the first item is no item. Nor is prose behind the last one ("Let me know if you need more!"),
    if none of the others has a paragraph of prose behind its first.
    """
    items = [_without_rule(item) for item in _items(reply)]
    if len(items) > 1 and all(_without_prose(item) == item for item in items[:-1]):
        items[-1] = _without_rule(_without_prose(items[-1]))
    return [plain(item) for item in items]


def _items(reply: str) -> Iterator[str]:
    first: re.Match[str] | None = None
    expected = 0
    item: list[str] = []
    for line in reply.splitlines():
        found = _NUMBERED.match(line)
        if found and (first is None or (int(found["number"]) == expected and _is_beside(found, first))):
            if item:
                yield "\n".join(item)
            first, expected = first or found, int(found["number"]) + 1
            opening = "" if found["closed"] else found["bold"] or ""  # `**1. Name a river.**` is `1. **Name a river.**`
            item = [opening + found["text"]]
        elif first is not None:
            item.append(line)
    if item:
        yield "\n".join(item)
    elif first is None:
        yield from (found[1] for line in reply.splitlines() if (found := _BULLET.match(line)))


def _is_beside(found: re.Match[str], first: re.Match[str]) -> bool:
    return found["mark"] == first["mark"] and len(found["indent"]) <= len(first["indent"])


def _without_rule(item: str) -> str:
    """An item without the line that separates it from the next one, such as `---`; of several such lines all are its own."""
    lines = item.rstrip().split("\n")
    rules = [number for number, line in enumerate(lines) if _RULE.fullmatch(line)]
    return "\n".join(lines[:-1]) if rules == [len(lines) - 1] else item


def _without_prose(item: str) -> str:
    """An item up to the first paragraph of prose behind its first one, if there is one outside of a block of code."""
    starts = (found.start() for found in _PROSE.finditer(item))
    return item[: next((start for start in starts if item.count("```", 0, start) % 2 == 0), None)]


def plain(text: str) -> str:
    """A prompt without what models put around one: a label such as `Prompt:`, quotation marks, blank lines."""
    text = _LABEL.sub("", text.strip()).strip()
    for opening, closing in _QUOTES:
        inside = text.removeprefix(opening).removesuffix(closing)
        if len(text) == len(opening + inside + closing) and opening not in inside and closing not in inside:
            text = inside.strip()
    return text
