"""Converts values of a row (text, message lists or transcripts) to checked turns of a conversation."""

from typing import Any, get_args

from aligndistill.data.files import BadRow
from aligndistill.data.transcripts import is_transcript, turns_of
from aligndistill.records import Message

Messages = tuple[Message, ...]
ROLES = get_args(Message.model_fields["role"].annotation)


def text_of(value: Any, column: str) -> str:
    """A value that must be text. Lone surrogates become U+FFFD, because they cannot be written as UTF-8.

    Raises:
        BadRow: missing, or not text.
    """
    if value is None:
        raise BadRow(f"missing {column}")
    if not isinstance(value, str):
        raise BadRow(f"{column} is not text", f"found {type(value).__name__}")
    return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def conversation_of(value: Any, column: str) -> Messages | None:
    """The turns of a message list or of a transcript; None for plain text.

    Raises:
        BadRow: neither text nor a list of messages with a known role and text.
    """
    if not isinstance(value, list):
        text = text_of(value, column)
        return turns_of(text) if is_transcript(text) else None
    if not value:
        raise BadRow(f"empty {column}")
    return tuple(_message_of(item, column) for item in value)


def _message_of(item: Any, column: str) -> Message:
    if not isinstance(item, dict):
        raise BadRow(f"{column} is not a list of messages", f"it holds {type(item).__name__}")
    role: Any = item.get("role")
    if role not in ROLES:
        raise BadRow("unknown role", f"{role!r} in {column}; known are {', '.join(ROLES)}")
    return Message(role=role, content=text_of(item.get("content"), "content of a message"))


def prompt_of(value: Any) -> Messages:
    """The value of a `prompt` column as checked turns. Plain text is one user turn; an empty assistant turn at the end is removed.

    Raises:
        BadRow: see `checked_prompt`.
    """
    turns = conversation_of(value, "prompt")
    if turns is None:
        turns = (Message(role="user", content=text_of(value, "prompt")),)
    elif turns[-1].role == "assistant" and not turns[-1].content:
        turns = turns[:-1]
    return checked_prompt(turns)


def checked_prompt(turns: Messages) -> Messages:
    """The same turns, if they are a prompt: an optional system message, then alternating turns, the last one a user turn.

    Raises:
        BadRow: no turns, roles out of order, the last turn is not the user's, or a turn is empty.
    """
    spoken = turns[1:] if turns and turns[0].role == "system" else turns
    if not spoken:
        raise BadRow("empty prompt")
    for place, turn in enumerate(spoken):
        expected = "assistant" if place % 2 else "user"
        if turn.role != expected:
            raise BadRow("roles out of order", f"turn {place + 1} is {turn.role}, expected {expected}")
        if not turn.content.strip():
            raise BadRow("empty prompt", f"turn {place + 1} has no text")
    if spoken[-1].role != "user":
        raise BadRow("prompt does not end with a user turn")
    return turns


def response_of(value: Any, column: str) -> str:
    """A response: text, or a list of one assistant message. It may be empty (see `checked_response`).

    Raises:
        BadRow: anything else.
    """
    if not isinstance(value, list):
        return text_of(value, column)
    turns = conversation_of(value, column) or ()
    if len(turns) != 1 or turns[0].role != "assistant":
        raise BadRow(f"{column} is not one assistant turn", f"found {', '.join(turn.role for turn in turns)}")
    return turns[0].content


def checked_response(text: str) -> str:
    """The same text, if it is not blank.

    Raises:
        BadRow: only white space.
    """
    if not text.strip():
        raise BadRow("empty response")
    return text
