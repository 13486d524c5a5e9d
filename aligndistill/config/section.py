"""The base class of all config sections, and the marks that fields carry in their annotations."""

from collections.abc import Container, Mapping
from enum import Enum
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

PLUGIN_PATTERN = r"^\w+(\.\w+)*:\w+(\.\w+)*$"
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""A name that is safe to use as a folder name."""


class FieldMark(Enum):
    """A mark in a field's annotation; read by `config/schema.py`.

    Attributes:
        NOT_HASHED: affects speed only, not results, and is excluded from fingerprints.
        READS_FILE: may name a local file or folder, whose content is part of the fingerprint.
        READS_CODE: names a function, whose module's source is part of the fingerprint.
        NAMES_MODEL: the name of one of the run's models, or a model section given inline.
        HASHED_IF_SET: excluded from fingerprints while it has its default, so that adding the key changed no fingerprint.
    """

    NOT_HASHED = "not hashed"
    READS_FILE = "reads a file"
    READS_CODE = "reads code"
    NAMES_MODEL = "names a model"
    HASHED_IF_SET = "hashed if set"


NotHashed, ReadsFile, ReadsCode, NamesModel, HashedIfSet = FieldMark

PluginName = Annotated[str, Field(pattern=PLUGIN_PATTERN), ReadsCode]
"""`package.module:name`, importable from the working directory or the environment."""


def name_or_section(value: Any) -> str:
    """Discriminator for a union of a name and a section."""
    return "name" if isinstance(value, str) else "section"


class Section(BaseModel):
    """A part of the config: unknown keys are errors, and instances are immutable."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)

    def hashed_by_content_alone(self) -> Container[str]:
        """The fields marked `ReadsFile` of which the content counts and the path does not."""
        return ()

    def hashed_by_name_alone(self) -> Container[str]:
        """The fields marked `ReadsFile` that name something built in: a file or folder with that name is not what is read."""
        return ()


T = TypeVar("T", bound=Section)


def with_defaults(section: T, defaults: Mapping[str, Any]) -> T:
    """The section with these values in the place of those that were not given; they still count as not given."""
    copy = section.model_copy()
    for name in defaults.keys() - section.model_fields_set:
        object.__setattr__(copy, name, defaults[name])  # `update` would mark it as given
    return copy
