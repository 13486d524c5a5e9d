"""Error messages for configs: where, which key, what was expected, what to do."""

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from types import NoneType
from typing import Any, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from aligndistill.config.aliases import NO_SUCH_KEY, OUR_NAMES
from aligndistill.config.judges import COMPARISONS_PATTERN
from aligndistill.config.models import LocalModel, OwnStart
from aligndistill.config.run import RunConfig
from aligndistill.config.schema import KeyPath, alternatives, fields_of, is_section, kind_of
from aligndistill.config.secrets import names_a_secret, redact
from aligndistill.config.section import NAME_PATTERN, PLUGIN_PATTERN, Section


@dataclass(frozen=True, order=True)
class Where:
    """A place in the user's input: a line of a file (0 for the whole file), or a command-line argument.

    Attributes:
        index: position of the file or argument among all given.
    """

    index: int
    source: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source


@dataclass(frozen=True)
class Problem:
    """One error in a config. Without `where`, its place is that of the key."""

    path: KeyPath
    text: str
    where: Where | None = None

    def line(self, where: Where | None) -> str:
        """The problem as one line of an error message, with secrets redacted."""
        place = f"{where}: " if where is not None else ""
        return place + redact(f"{show_key(self.path)}: {self.text}" if self.path else self.text)


def show_key(path: KeyPath) -> str:
    """`("candidates", "from", 1)` -> `candidates.from[1]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the known word closest to this one, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def in_columns(names: Sequence[str], width: int = 78) -> str:
    """The names on indented lines, in columns of equal width, read from left to right."""
    widest = max(map(len, names), default=0) + 2
    across = max(1, (width - 2) // widest)
    rows = (names[start : start + across] for start in range(0, len(names), across))
    return "\n".join("  " + "".join(name.ljust(widest) for name in row).rstrip() for row in rows)


def no_such_model(name: str, known: Iterable[str]) -> str:
    """The message for the name of a model that the run does not have."""
    advice = f"models of this run: {', '.join(known)}" if list(known) else "this run has none: add 'teacher' or 'models'"
    return f"there is no model '{name}'{did_you_mean(name, known)} ({advice})"


def explain(error: ValidationError) -> Iterator[Problem]:
    """Pydantic's errors for a `RunConfig` read from JSON, as one problem per key."""
    expected: dict[KeyPath, list[str]] = {}
    found: dict[KeyPath, str] = {}
    for detail in error.errors(include_url=False):
        place = _locate(detail["loc"])
        expectation = _expectation(detail, place)
        if expectation is None:
            yield _statement(detail, place)
        else:  # each branch of a union reports its own error for the same value
            expected.setdefault(place.path, []).append(expectation)
            found[place.path] = _found(place.path, detail)
    for path, expectations in expected.items():
        yield Problem(path, f"expected {' or '.join(dict.fromkeys(expectations))}, found {found[path]}")


# -------------------------------------------------------------------------------------------------------------- schema


@dataclass(frozen=True)
class _Place:
    """Where pydantic found an error: the keys, the section that the last key belongs to, and the types allowed there.

    Attributes:
        around: the sections around `section` with their paths, innermost first.
    """

    path: KeyPath
    section: type[Section]
    choices: tuple[Any, ...]
    around: tuple[tuple[KeyPath, type[Section]], ...] = ()


def _locate(location: tuple[str | int, ...]) -> _Place:
    """Follow a pydantic location through the schema. It also contains the names of union branches, which are not keys."""
    path: list[str | int] = []
    section: type[Section] = RunConfig
    choices: tuple[Any, ...] = (RunConfig,)
    entered: list[tuple[KeyPath, type[Section]]] = []
    for part in location:
        if len(choices) > 1:
            sections = [choice for choice in choices if is_section(choice)] if part == "section" else []  # `name_or_section`
            named = [choice for choice in choices if part in (kind_of(choice), getattr(choice, "__name__", None))]
            choices = tuple(choice for choice in choices if choice in named or choice in sections) or choices
        elif part != "[key]":
            choice: Any = choices[0] if choices else None
            choices = ()
            if is_section(choice):
                section = choice
                entered.append((tuple(path), section))
                choices = alternatives(fields_of(section).get(str(part), NoneType))
            elif get_origin(choice) in (dict, tuple):
                choices = alternatives(get_args(choice)[1 if get_origin(choice) is dict else 0])
            path.append(part)
    return _Place(tuple(path), section, choices, tuple(reversed(entered[:-1])))


# ------------------------------------------------------------------------------------------------------------ messages

_TYPES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "dict_type": "a section (key: value pairs)",
    "model_attributes_type": "a section (key: value pairs)",
    "model_type": "a section (key: value pairs)",
}
_SECTION_TYPES = ("dict_type", "model_attributes_type", "model_type")
_BOUNDS = {
    "greater_than": ("gt", "a number greater than"),
    "greater_than_equal": ("ge", "a number not less than"),
    "less_than": ("lt", "a number less than"),
    "less_than_equal": ("le", "a number not greater than"),
}
_PATTERNS = {
    COMPARISONS_PATTERN: "all, sort, swiss or random(n)",
    PLUGIN_PATTERN: "package.module:name",
    NAME_PATTERN: "a name made of letters, digits, '.', '-' and '_' that starts with a letter or a digit",
}


def _expectation(detail: ErrorDetails, place: _Place) -> str | None:
    """What was expected, when the value has the wrong type or is out of range; None for other errors."""
    kind, context = detail["type"], detail.get("ctx", {})
    kinds = [name for choice in place.choices if (name := kind_of(choice))]
    if kind in _SECTION_TYPES and len(kinds) > 1:
        return f"a section with a kind ({', '.join(kinds)})"
    if kind in _TYPES:
        return _TYPES[kind]
    if kind in _BOUNDS:
        name, bound = _BOUNDS[kind]
        return f"{bound} {context[name]:g}"
    if kind == "literal_error":
        return f"{context['expected']}" + (f" or a section with a kind ({', '.join(kinds)})" if kinds else "")
    if kind == "too_short":
        return f"a list of at least {context['min_length']}"
    if kind == "string_pattern_mismatch":
        return _PATTERNS[context["pattern"]]
    return None


def _found(path: KeyPath, detail: ErrorDetails) -> str:
    """The value as shown in messages, with a hint if only its syntax is wrong."""
    value = detail["input"]
    if value is None:
        return "nothing (null)"
    if isinstance(value, dict):
        return "a section"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if any(names_a_secret(str(part)) for part in path):
        return "a value (not shown: it may be a secret)"
    if isinstance(value, str):
        hint = " (put it in square brackets)" if detail["type"] == "tuple_type" else ""
        if detail["type"] in _SECTION_TYPES and value.startswith("{"):
            hint = " (remove the quotes around the braces)"
        elif detail["type"] in _SECTION_TYPES and re.match(r"\w+:", value):  # the shell expands {a:1,b:2} to two arguments
            hint = " (put braces around it, a space after each colon, and an argument in quotes)"
        if detail["type"] == "literal_error":
            hint = did_you_mean(value, detail["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", "))
        return f"'{value if len(value) <= 60 else value[:60] + '...'}'{hint}"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text + (" (put it in quotes)" if detail["type"] == "string_type" else "")


def _statement(detail: ErrorDetails, place: _Place) -> Problem:
    """Errors that are not about one value: missing and unknown keys, unknown kinds, rules of a section."""
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "missing":
        return Problem(place.path, "this key is required")
    if kind == "extra_forbidden" and _is_planned(place):
        return Problem(place.path, "is not available in this version")
    if kind == "extra_forbidden":
        return Problem(place.path, _unknown_key(str(place.path[-1]), place))
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        kinds = [name for choice in place.choices if (name := kind_of(choice))]
        known = f"(known kinds: {', '.join(kinds)})"
        if kind == "union_tag_not_found":
            return Problem((*place.path, "kind"), f"this key is required {known}")
        tag = context["tag"]
        return Problem((*place.path, "kind"), f"unknown kind '{tag}'{did_you_mean(tag, kinds)} {known}")
    if kind == "value_error":
        return Problem(place.path, str(context["error"]))
    return Problem(place.path, detail["msg"])


_PLANNED_KEYS: tuple[tuple[type[Section], frozenset[str]], ...] = ((LocalModel, frozenset({"quantize"})),)
"""Keys that a later version will have, by section."""


def _is_planned(place: _Place) -> bool:
    key = place.path[-1]
    return any(issubclass(place.section, section) and key in keys for section, keys in _PLANNED_KEYS)


def _unknown_key(key: str, place: _Place) -> str:
    """The message for an unknown key. It never contains the value, which may be a secret."""
    known = fields_of(place.section)
    listed = f"(known keys: {', '.join(known)})"
    if names_a_secret(key):
        advice = "set api_key_env" if "api_key_env" in known else "name the variable in an endpoint's api_key_env"
        return f"unknown key; API keys are read from environment variables only: {advice} {listed}"
    return f"unknown key{_hint(key, place)} {listed}"


def _hint(key: str, place: _Place) -> str:
    """What to write instead of an unknown key: its name here, its section, or the closest known key; empty if nothing is close."""
    known, usual = fields_of(place.section), key.lower().replace("-", "_")
    ours = OUR_NAMES.get(usual, ())
    if ":" in key:
        return f"; write a space after the colon: '{key.partition(':')[0]}: ...'"
    if here := [f"'{name}'" for name in ours if name in known]:
        return f"; it is called {' and '.join(here)} here"
    for name in (key, *ours):
        for section, annotation in known.items():
            if any(is_section(one) and one is not OwnStart and name in fields_of(one) for one in alternatives(annotation)):
                belongs = "belongs" if name == key else f"is called '{name}' here, and belongs"
                return f"; it {belongs} under '{section}'"
    if usual in NO_SUCH_KEY:
        return f"; {NO_SUCH_KEY[usual]}"
    for name in (key, *ours):
        around = [show_key((*path, name)) for path, section in place.around if name in fields_of(section)]
        elsewhere = around[:1] or [path for path in _all_keys() if path.rpartition(".")[2] == name]
        if 0 < len(elsewhere) <= MOST_PLACES:
            return f"; write it as {' or '.join(elsewhere)}"
    return did_you_mean(key, known)


MOST_PLACES = 3
"""A key of more sections than this is not suggested: it says too little about what was meant."""


@cache
def _all_keys() -> tuple[str, ...]:
    """The keys of a config with those around them, `students.NAME.learning_rate`, three levels deep."""

    def keys(section: type[Section], before: str, levels: int) -> Iterator[str]:
        for name, annotation in fields_of(section).items():
            yield before + name
            for choice in alternatives(annotation) if levels > 1 else ():
                named = get_origin(choice) is dict
                for inner in alternatives(get_args(choice)[1]) if named else (choice,):
                    if is_section(inner):
                        yield from keys(inner, f"{before}{name}.{'NAME.' if named else ''}", levels - 1)

    return tuple(dict.fromkeys(keys(RunConfig, "", 3)))
