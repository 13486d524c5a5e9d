"""What every part of the config is."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

PLUGIN_PATTERN = r"^[\w.]+:[\w.]+$"
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""A name that is safe as a folder's."""

PluginName = Annotated[str, Field(pattern=PLUGIN_PATTERN)]
"""`package.module:name`, importable from the working directory or the environment."""


def name_or_section(value: Any) -> str:
    """Which branch of a union of names and sections a value belongs to."""
    return "name" if isinstance(value, str) else "section"


class Section(BaseModel):
    """A part of the config: unknown keys are refused, values cannot be changed afterwards."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)
