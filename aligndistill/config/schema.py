"""Inspects sections: their fields and types, the marks on fields, and the models that they name."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from aligndistill.config.section import FieldMark, Section

KeyPath = tuple[str | int, ...]
S = TypeVar("S", bound=Section)


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """The alternatives of a union type, without None."""
    if get_origin(annotation) is Annotated:
        return alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return tuple(choice for branch in get_args(annotation) for choice in alternatives(branch))
    return () if annotation is NoneType else (annotation,)


def is_section(choice: Any) -> bool:
    """Whether a type is a section."""
    return isinstance(choice, type) and issubclass(choice, Section)


def fields_of(section: type[Section]) -> dict[str, Any]:
    """The keys of a section, as written in YAML, with their types."""
    return {field.alias or name: field.annotation for name, field in section.model_fields.items()}


def kind_of(choice: Any) -> str | None:
    """The `kind` that selects this section in a union of sections; None if it has none."""
    found = fields_of(choice).get("kind") if is_section(choice) else None
    return None if found is None else str(get_args(found)[0])


@cache
def marks(section: type[Section]) -> Mapping[str, frozenset[FieldMark]]:
    """The marks on each field, by the field's name."""
    return {
        name: frozenset(mark for mark in [*field.metadata, *_within(field.annotation)] if isinstance(mark, FieldMark))
        for name, field in section.model_fields.items()
    }


def _within(annotation: Any) -> Iterator[Any]:
    """The metadata of the `Annotated` of a type and of its alternatives; pydantic unwraps only the outermost."""
    if get_origin(annotation) is Annotated:
        inner, *metadata = get_args(annotation)
        yield from metadata
        yield from _within(inner)
    elif get_origin(annotation) in (Union, UnionType):
        for branch in get_args(annotation):
            yield from _within(branch)


def sections_in(section: Section, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Section]]:
    """A section and every section inside it, models given inline among them, each with its path."""
    yield path, section
    for name, field in type(section).model_fields.items():
        value, key = getattr(section, name), (*path, field.alias or name)
        entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, tuple) else ()
        inside = [(key, value), *(((*key, part), one) for part, one in entries)]
        for place, one in inside:
            if isinstance(one, Section):
                yield from sections_in(one, place)


@dataclass(frozen=True)
class ModelUse:
    """A place where a section names a model or contains one inline.

    Attributes:
        path: the keys, from the section that `model_uses` was called on.
        owner: the section with the key.
        model: the name or the model's section.
    """

    path: KeyPath
    owner: Section
    model: Any


def model_uses(section: Section | None) -> Iterator[ModelUse]:
    """Every model named in a section or in its nested sections."""
    for path, owner, name in _walk(section, ()):
        value = getattr(owner, name)
        if FieldMark.NAMES_MODEL in marks(type(owner))[name] and value is not None:
            yield ModelUse((*path, type(owner).model_fields[name].alias or name), owner, value)


def models_of(*sections: Section | None) -> tuple[str, ...]:
    """The names of the models used in sections, each once. `resolved` gives inline models their names."""
    return tuple(dict.fromkeys(use.model for section in sections for use in model_uses(section) if isinstance(use.model, str)))


def with_named_models(section: S, name: str, named: dict[str, Any]) -> S:
    """The section with every inline model replaced by a name; the model is added to `named` under that name."""
    changed: dict[str, Any] = {}
    for field in type(section).model_fields:
        value = getattr(section, field)
        if FieldMark.NAMES_MODEL in marks(type(section))[field]:
            changed[field] = _register(value, name, named) if isinstance(value, Section) else value
        elif isinstance(value, Section):
            changed[field] = with_named_models(value, name, named)
        elif isinstance(value, dict):
            changed[field] = {
                key: with_named_models(one, f"{name}-{key}", named) if isinstance(one, Section) else one
                for key, one in value.items()
            }
        elif isinstance(value, tuple):
            changed[field] = tuple(
                with_named_models(one, f"{name}-{number}", named) if isinstance(one, Section) else one
                for number, one in enumerate(value)
            )
    return section.model_copy(update=changed)


def _register(model: Section, name: str, named: dict[str, Any]) -> str:
    """The name of a model in `named`, adding it if there is no equal model there."""
    for known, one in named.items():
        if one == model:
            return known
    unique, number = name, 2
    while unique in named:
        unique, number = f"{name}-{number}", number + 1
    named[unique] = model
    return unique


def _walk(section: Section | None, path: KeyPath) -> Iterator[tuple[KeyPath, Section, str]]:
    """Every field of a section and of its nested sections, without the fields of inline models."""
    if section is None:
        return
    for name, field in type(section).model_fields.items():
        yield path, section, name
        if FieldMark.NAMES_MODEL in marks(type(section))[name]:
            continue
        value, key = getattr(section, name), field.alias or name
        inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, tuple) else ()
        for part, one in inside:
            if isinstance(one, Section):
                yield from _walk(one, (*path, key, part))
        if isinstance(value, Section):
            yield from _walk(value, (*path, key))
