"""Cards as text: front matter, our marked part of a README.md, and Markdown that no content can break out of."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from aligndistill.errors import DataError

BEGIN, END = "<!-- aligndistill: begin -->", "<!-- aligndistill: end -->"
"""What is between them is replaced by the next export or push; the rest of a README.md is its author's."""
LICENSE_KEYS = ("license", "license_name", "license_link")
_FRONT = re.compile(r"\A---[ \t]*\r?\n(.*?)\r?\n?---[ \t]*(?:\r?\n|\Z)", re.DOTALL)


@dataclass(frozen=True)
class Terms:
    """Under which licence, and in which languages, something is published: what a user says, None and empty without that."""

    license: str | None = None
    license_name: str | None = None
    license_link: str | None = None
    language: tuple[str, ...] = ()

    @property
    def shown(self) -> str | None:
        """The licence as people call it."""
        return self.license_name or self.license

    def front_matter(self) -> Iterator[tuple[str, Any]]:
        """The keys that the Hub reads."""
        for name in LICENSE_KEYS:
            if value := getattr(self, name):
                yield name, value
        if self.language:
            yield "language", list(self.language)


def card_text(front: Mapping[str, Any], body: Iterable[str]) -> str:
    """A README.md with our part alone."""
    return f"{_front_text(front)}\n{_block(body)}\n"


def with_our_part(existing: str, ours: str) -> str:
    """An existing README.md with our part of it replaced, or added at its end, and with our keys in its front matter.

    Its text outside our part, and keys of its own, stay; its tags are joined with ours.

    Raises:
        DataError: our part has a beginning and no end, or the front matter cannot be read.
    """
    front, body = _split(existing)
    own_front, own_body = _split(ours)
    tags = list(dict.fromkeys([*(front.get("tags") or []), *(own_front.get("tags") or [])]))
    replaced = [name for name in LICENSE_KEYS if "license" in own_front and name not in own_front]
    kept = {name: value for name, value in front.items() if name not in replaced}
    merged = {**kept, **own_front, **({"tags": tags} if tags else {})}
    before, begins, rest = body.partition(BEGIN)
    _, ends, after = rest.partition(END)
    if bool(begins) != bool(ends):
        raise DataError(f"the README.md has '{BEGIN}' without '{END}' behind it: add that line, or remove the first one.")
    block = own_body.strip()
    text = before + block + after if begins else f"{body.rstrip()}\n\n{block}\n" if body.strip() else f"\n{block}\n"
    return _front_text(merged) + text


def has_our_part(text: str) -> bool:
    """Whether a README.md has a part of ours."""
    return BEGIN in text


def _front_text(values: Mapping[str, Any]) -> str:
    return f"---\n{yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True, width=200)}---\n"


def _split(text: str) -> tuple[dict[str, Any], str]:
    front = _FRONT.match(text)
    if front is None:
        return {}, text
    try:
        values = yaml.safe_load(front[1]) or {}
    except yaml.YAMLError:
        values = None
    if not isinstance(values, dict):
        raise DataError("the front matter of the README.md, between its first two lines of dashes, is no YAML: fix it first.")
    return values, text[front.end() :]


def _block(body: Iterable[str]) -> str:
    inside = "\n".join(body).replace(BEGIN, "").replace(END, "")
    return f"{BEGIN}\n\n{inside.strip()}\n\n{END}"


# ------------------------------------------------------------------------------------------------------------ Markdown


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A Markdown table with an empty line behind it; nothing without rows."""
    lines = [_row(row) for row in rows]
    if lines:
        yield from (_row(header), "|" + " --- |" * len(header), *lines, "")


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(plain(cell) for cell in cells) + " |"


def plain(text: str) -> str:
    """A text on one line that begins no column, tag or comment."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def fenced(text: str, language: str = "") -> str:
    """A code block, fenced with more backticks than the text has in a row."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}\n"


def counts(values: Mapping[str, int]) -> str:
    """`1,200 rows, 3 answers`, without what is zero."""
    return ", ".join(f"{number:,} {name}" for name, number in values.items() if number)
