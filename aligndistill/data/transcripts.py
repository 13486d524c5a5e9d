r"""HH-RLHF transcripts: one string with turns marked `\n\nHuman:` and `\n\nAssistant:` (Bai et al. 2022, arXiv:2204.05862)."""

import re
from typing import Literal

from aligndistill.data.files import BadRow
from aligndistill.records import Message

MARK = re.compile(r"\n\n(Human|Assistant):")
ROLES: dict[str, Literal["user", "assistant"]] = {"Human": "user", "Assistant": "assistant"}


def is_transcript(text: str) -> bool:
    """Whether a text begins with a human turn and has an assistant turn (possibly empty, as in `...\\n\\nAssistant:`)."""
    begin, *turns = MARK.split(_normalised(text))
    return not begin and turns[:1] == ["Human"] and "Assistant" in turns[::2]


def turns_of(text: str) -> tuple[Message, ...]:
    """The turns of a transcript, without the white space around each.

    Raises:
        BadRow: the text does not begin with a marker.
    """
    begin, *turns = MARK.split(_normalised(text))
    if begin or not turns:
        raise BadRow("not a Human/Assistant transcript")
    return tuple(Message(role=ROLES[who], content=text.strip()) for who, text in zip(turns[::2], turns[1::2], strict=True))


def _normalised(text: str) -> str:
    return "\n\n" + text.replace("\r\n", "\n").strip()
