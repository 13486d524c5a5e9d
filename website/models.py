"""Pydantic models as tables: the type, default and meaning of every field."""

import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

NAMES = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    Path: "path",
    object: "any value",
    Any: "any value",
}
LIMITS = {"Gt": ("gt", "above"), "Ge": ("ge", "at least"), "Lt": ("lt", "below"), "Le": ("le", "at most")}

Titles = Callable[[type[BaseModel]], str]
"""How a model is named in a type, as Markdown."""


def summary(model: type[BaseModel]) -> str:
    """What a model's docstring says before the list of its attributes."""
    text = inspect.cleandoc(model.__doc__ or "").partition("\nAttributes:")[0]
    return re.sub(r"[ \t]*\n[ \t]*(?=\S)", " ", text.replace("\n\n", "\0")).replace("\0", "\n\n").strip()


def meanings(model: type[BaseModel]) -> dict[str, str]:
    """What docstrings say of fields, by name; those of base classes hold where a model says nothing of its own."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        listed = inspect.cleandoc(base.__dict__.get("__doc__") or "").partition("Attributes:\n")[2]
        entries = re.split(r"^ {4}(?=\S)", listed, flags=re.MULTILINE)[1:]
        for entry in entries:
            names, _, text = entry.partition(":")
            for name in names.split(", "):
                found[name.strip()] = " ".join(text.split("\n\n")[0].split())
    return found


def type_text(annotation: Any, title: Titles) -> str:
    """A type in words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_text(inner[0], title) + limits(inner[1:])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (Union, UnionType):
        return _alternatives(inner, title)
    if origin in (tuple, list, frozenset, set) or getattr(origin, "__name__", "") in ("Sequence", "Container"):
        kinds = [one for one in inner if one is not Ellipsis]
        if origin is tuple and Ellipsis not in inner and len(kinds) > 1:
            return f"{len(kinds)} values: " + ", ".join(type_text(one, title) for one in kinds)
        return f"list of ({type_text(kinds[0], title)})" if kinds else "list"
    if origin is dict or getattr(origin, "__name__", "") == "Mapping":
        return f"name: {type_text(inner[1], title)}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return title(annotation)
    return NAMES.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _alternatives(choices: tuple[Any, ...], title: Titles) -> str:
    texts = [type_text(one, title) for one in choices if one is not NoneType]
    return " or ".join(dict.fromkeys(texts))


def limits(metadata: tuple[Any, ...]) -> str:
    """The bounds among a field's metadata, in words."""
    words = []
    for mark in metadata:
        flat = mark.metadata if isinstance(mark, FieldInfo) else [mark]
        for one in flat:
            if type(one).__name__ in LIMITS and isinstance(one, annotated_types.BaseMetadata):
                name, word = LIMITS[type(one).__name__]
                words.append(f"{word} {getattr(one, name)}")
    return f", {' and '.join(words)}" if words else ""


def default_text(field: FieldInfo) -> str:
    """A field's default as YAML has it; `required` if there is none."""
    if field.is_required():
        return "required"
    default = field.default if field.default is not PydanticUndefined else field.get_default(call_default_factory=True)
    if isinstance(default, BaseModel):
        return "its own defaults"
    return f"`{value_text(default)}`"


def value_text(value: Any) -> str:
    """A value as YAML has it, in one line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ", ".join(value_text(one) for one in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {value_text(one)}" for key, one in value.items()) + "}"
    if isinstance(value, float) and 0 < abs(value) < 1e-3:
        return re.sub(r"e-0?", "e-", f"{value:g}")
    return str(value)


def rows(model: type[BaseModel], title: Titles, with_default: bool, extra: Callable[[str], str]) -> list[str]:
    """A model's fields as rows of a Markdown table.

    Args:
        extra: more words on a field, by its name, behind its meaning.
    """
    known = meanings(model)
    lines = [
        f"| key | type |{' default |' if with_default else ''} meaning |",
        f"| --- | --- |{' --- |' if with_default else ''} --- |",
    ]
    for name, field in model.model_fields.items():
        cells = [f"`{field.alias or name}`", type_text(field.annotation, title) + limits(tuple(field.metadata))]
        if with_default:
            cells.append(default_text(field))
        cells.append(f"{known.get(name, '')} {extra(name)}".strip())
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return lines
