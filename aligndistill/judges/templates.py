"""Prompt templates for judges: plain text with named fields in braces."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from aligndistill.errors import ConfigError

PAIRWISE_FIELDS = frozenset({"prompt", "first", "second"})
RUBRIC_FIELDS = frozenset({"prompt", "response", "lowest", "highest"})
LISTWISE_FIELDS = frozenset({"prompt", "responses"})
OPTIONAL_FIELDS = frozenset({"mark", "verdict"})
"""`{mark}` is a delimiter, another one in every request; `{verdict}` asks for the verdict, with reasons before it or without."""

_FOLDER = Path(__file__).with_name("templates")
_FIELD = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Template:
    """A template's text, known to hold its fields and no others."""

    text: str

    @property
    def asks_for_the_verdict(self) -> bool:
        """Whether it leaves to the judge how the verdict is asked for, by the field `{verdict}`."""
        return "verdict" in _FIELD.findall(self.text)

    def fill(self, **values: str) -> str:
        """The text with all fields filled in one pass: what a value says in braces stays as it is."""
        return _FIELD.sub(lambda match: values[match[1]], self.text)


def load_template(name: str, fields: frozenset[str]) -> Template:
    """A built-in template by its name, or one from a file by its path.

    Raises:
        ConfigError: there is no such template, or it does not hold these fields, or holds others than these and the optional ones.
    """
    built_in = {path.stem: path for path in sorted(_FOLDER.glob("*.txt"))}
    path = built_in.get(name, Path(name))
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read the judge template '{name}': {error}. Give the path of a text file, or one of {', '.join(built_in)}."
        ) from None
    found = set(_FIELD.findall(text))
    problems = [
        f"{what} {_braced(some)}"
        for what, some in (("lacks", fields - found), ("has unknown fields", found - fields - OPTIONAL_FIELDS))
        if some
    ]
    if problems:
        raise ConfigError(
            f"the judge template '{name}' {' and '.join(problems)}. "
            f"A template of this kind has {_braced(fields)}, each at least once, and may have {_braced(OPTIONAL_FIELDS)}."
        )
    return Template(text)


def _braced(fields: Iterable[str]) -> str:
    return ", ".join(f"{{{field}}}" for field in sorted(fields))
