"""Prompt templates for judges: plain text with named fields in braces."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from aligndistill.config.judges import TEMPLATES
from aligndistill.errors import ConfigError
from aligndistill.judges import domains

PAIRWISE_FIELDS = frozenset({"prompt", "first", "second"})
RUBRIC_FIELDS = frozenset({"prompt", "response", "lowest", "highest"})
LISTWISE_FIELDS = frozenset({"prompt", "responses"})
OPTIONAL_FIELDS = frozenset({"mark", "verdict"})
"""`{mark}` is a delimiter, different in every request; `{verdict}` is the request for the verdict, with or without reasons."""

CRITERIA = "criteria"
"""`{criteria}`: those of the judge's domain."""

_OF_DOMAINS = {
    ("general", PAIRWISE_FIELDS): "pairwise",
    ("listwise", LISTWISE_FIELDS): "listwise",
    ("rubric", RUBRIC_FIELDS): "rubric",
}
"""The templates that ask by a domain's criteria, in place of the default ones."""

_FOLDER = Path(__file__).with_name("templates")
_FIELD = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Template:
    """The text of a template whose fields have been checked, and what fills `{criteria}`."""

    text: str
    criteria: str = ""

    @property
    def asks_for_the_verdict(self) -> bool:
        """Whether it has the field `{verdict}`, in which the judge puts its request for the verdict."""
        return "verdict" in _FIELD.findall(self.text)

    def fill(self, **values: str) -> str:
        """The text with all fields filled in one pass: braces in values are unchanged."""
        values = {CRITERIA: self.criteria, **values}
        return _FIELD.sub(lambda match: values[match[1]], self.text)


def template_text(name: str) -> str:
    """The text of a built-in template by its name, or of one in a file; empty if there is none."""
    path = _path(name)
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def load_template(name: str, fields: frozenset[str], domain: str | None = None) -> Template:
    """A built-in template by its name, or one from a file by its path.

    Args:
        domain: its criteria fill `{criteria}`, which the template then needs; the default templates are replaced by ones that
            have it.

    Raises:
        ConfigError: there is no such template or domain, or the fields are not exactly these and, optionally, `OPTIONAL_FIELDS`.
    """
    path = _path(name)
    if domain is not None and name in TEMPLATES:
        if (name, fields) not in _OF_DOMAINS:
            raise ConfigError(f"the judge template '{name}' has its own criteria: remove 'template' or 'domain'.")
        path = _FOLDER / "domains" / f"{_OF_DOMAINS[name, fields]}.txt"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read the judge template '{name}': {error}. Give the path of a text file, or one of {', '.join(TEMPLATES)}."
        ) from None
    needed = fields if domain is None else fields | {CRITERIA}
    found = set(_FIELD.findall(text))
    problems = [
        f"{what} {_braced(some)}"
        for what, some in (("is missing", needed - found), ("has unknown fields", found - needed - OPTIONAL_FIELDS))
        if some
    ]
    if problems:
        raise ConfigError(
            f"the judge template '{name}' {' and '.join(problems)}. "
            f"A template of this kind needs {_braced(needed)}, each at least once, and may have {_braced(OPTIONAL_FIELDS)}."
        )
    return Template(text, domains.criteria(domain) if domain is not None else "")


def _path(name: str) -> Path:
    return _FOLDER / f"{name}.txt" if name in TEMPLATES else Path(name)


def _braced(fields: Iterable[str]) -> str:
    return ", ".join(f"{{{field}}}" for field in sorted(fields))
