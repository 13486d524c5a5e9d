"""Texts of models and data as they are shown: never as HTML, with invisible characters made visible, and compared word by word."""

import re
import unicodedata
from collections.abc import Iterator
from difflib import SequenceMatcher
from typing import NamedTuple

MOST_WORDS = 2000
"""Longer texts are compared only up to here: the time grows with the square."""

_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
_KEPT = {"\n", "\t"}
_WORDS = re.compile(r"\s+|\w+|[^\w\s]")
_SUSPECT = re.compile(r"[^\n\t\x20-\x7e\xa0-\xac\xae-\u05ff]")


class Piece(NamedTuple):
    """A piece of a comparison: `kind` is `same`, `removed` or `added`."""

    kind: str
    text: str


def visible(text: str) -> str:
    """The text with control, format, direction and surrogate characters written as `⟨U+202E⟩`; newlines and tabs stay."""
    return _SUSPECT.sub(_shown, text)


def _shown(match: re.Match[str]) -> str:
    character = match[0]
    if character in _KEPT or unicodedata.category(character) not in _INVISIBLE:
        return character
    return f"⟨U+{ord(character):04X}⟩"


def word_diff(before: str, after: str) -> list[Piece]:
    """The second text with what the first has besides, word by word."""
    old, new = _WORDS.findall(before), _WORDS.findall(after)
    pieces = list(_pieces(old[:MOST_WORDS], new[:MOST_WORDS]))
    rest = "".join(new[MOST_WORDS:])
    return [*pieces, Piece("same", rest)] if rest else pieces


def _pieces(old: list[str], new: list[str]) -> Iterator[Piece]:
    """Changes that only white space separates are one change, which reads better than word by word."""
    removed, added, space = "", "", ""
    for kind, i, j, k, m in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind != "equal":
            removed, added, space = removed + space + "".join(old[i:j]), added + space + "".join(new[k:m]), ""
            continue
        same = "".join(new[k:m])
        if (removed or added) and not space and same.isspace():
            space = same
            continue
        yield from _changed(removed, added)
        yield Piece("same", space + same)
        removed, added, space = "", "", ""
    yield from _changed(removed, added)
    if space:
        yield Piece("same", space)


def _changed(removed: str, added: str) -> Iterator[Piece]:
    if removed.strip():
        yield Piece("removed", removed)
    if added.strip():
        yield Piece("added", added)
    elif removed.strip() == "" and (removed or added):  # white space alone: kept, but not shown as a change
        yield Piece("same", added)
