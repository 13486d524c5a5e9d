"""Separates what a model thought before it answered from the answer, by the markers that model families write."""

from typing import NamedTuple

from aligndistill.models.thought_markers import ANSWER_HEADER, ANY_CLOSING, ANY_OPENING, BLOCKS


class SplitReply(NamedTuple):
    """A reply in two parts.

    Attributes:
        thoughts: what stood between the markers, without white space around it; blocks are joined by a newline.
        answer: the rest; the whole reply, unchanged, if it has no markers.
        unfinished: whether the reply ended inside the thoughts. Then `answer` is empty: the model gave none.
    """

    thoughts: str
    answer: str
    unfinished: bool


def split_thoughts(text: str) -> SplitReply:
    """Split a reply into thoughts and answer.

    Thoughts are one or more blocks at the start of a reply, or everything before a closing marker that nothing opened: some
    templates write the opening marker themselves, at the end of the prompt. To a reply to such a prompt add that marker
    before calling this, so that a reply which ended inside its thoughts is recognised. An empty block at the start does not count:
    llama.cpp returns the one that a request began the answer with, and the model may think all the same. Markers further inside an
    answer are part of it: an answer may be about them.
    """
    thoughts = []
    rest = text
    while block := _first_block(rest):
        inside, after = block
        thoughts.append(inside.strip())
        if after is None:
            return SplitReply(_joined(thoughts), "", unfinished=True)
        rest = after
    if header := ANSWER_HEADER.match(rest):
        return SplitReply(_joined(thoughts), rest[header.end() :], unfinished=False)
    if any(thoughts):
        return SplitReply(_joined(thoughts), rest.lstrip(), unfinished=False)
    closing = ANY_CLOSING.search(rest)
    if closing and not ANY_OPENING.search(rest, 0, closing.start()):
        return SplitReply(rest[: closing.start()].strip(), rest[closing.end() :].lstrip(), unfinished=False)
    return SplitReply("", rest.lstrip() if thoughts else text, unfinished=False)


def _first_block(text: str) -> tuple[str, str | None] | None:
    """The thoughts at the start of a text and the text behind them, which is None if the thoughts do not end."""
    for opening, closing in BLOCKS:
        if start := opening.match(text):
            end = closing.search(text, start.end())
            return (text[start.end() : end.start()], text[end.end() :]) if end else (text[start.end() :], None)
    return None


def _joined(thoughts: list[str]) -> str:
    return "\n".join(part for part in thoughts if part)
