"""The built-in texts that models are asked with."""

import re
from collections.abc import Sequence
from pathlib import Path

from aligndistill.records import Message

_FOLDER = Path(__file__).with_name("templates")
_FIELD = re.compile(r"\{(\w+)\}")


def built_in(name: str) -> str:
    """The text of a built-in template."""
    return (_FOLDER / f"{name}.txt").read_text(encoding="utf-8").strip()


def with_fields(text: str, **fields: str) -> str:
    """A template with its fields filled in one pass: braces in values are unchanged."""
    return _FIELD.sub(lambda match: fields[match[1]], text)


def fixed_text(text: str) -> str:
    """A template without its fields: what a reply must not repeat."""
    return _FIELD.sub(" ", text)


def with_system(messages: Sequence[Message], before: Sequence[str] = (), after: Sequence[str] = ()) -> tuple[Message, ...]:
    """A conversation with texts before and after those of its system turn, which is added if it has none. Empty texts are none."""
    own = [messages[0].content] if messages and messages[0].role == "system" else []
    texts = [text for text in (*before, *own, *after) if text.strip()]
    turns = tuple(messages[len(own) :])
    return (Message(role="system", content="\n\n".join(texts)), *turns) if texts else turns


def passages(context: str) -> str:
    """What a system turn says of a prompt's context; empty without any."""
    return with_fields(built_in("context"), context=context) if context else ""
