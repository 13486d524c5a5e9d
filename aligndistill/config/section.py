"""What every part of the config is, and how a field says what else depends on it."""

from enum import Enum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

PLUGIN_PATTERN = r"^[\w.]+:[\w.]+$"
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""A name that is safe as a folder's."""


class FieldMark(Enum):
    """What a field's annotation may carry; `config/schema.py` finds it again.

    Attributes:
        NOT_HASHED: changes how fast, never what: it stays out of fingerprints.
        READS_FILE: may name a local file or folder, whose content enters the fingerprint.
        READS_CODE: names a function, whose module's content enters the fingerprint.
        NAMES_MODEL: a model of the run by name, or written out.
    """

    NOT_HASHED = "not hashed"
    READS_FILE = "reads a file"
    READS_CODE = "reads code"
    NAMES_MODEL = "names a model"


NotHashed, ReadsFile, ReadsCode, NamesModel = FieldMark

PluginName = Annotated[str, Field(pattern=PLUGIN_PATTERN), ReadsCode]
"""`package.module:name`, importable from the working directory or the environment."""


def name_or_section(value: Any) -> str:
    """Which branch of a union of names and sections a value belongs to."""
    return "name" if isinstance(value, str) else "section"


class Section(BaseModel):
    """A part of the config: unknown keys are refused, values cannot be changed afterwards."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)
