"""The HTML templates beside this file: all values are escaped, and undefined names are errors."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


def environment() -> "Environment":
    """A new template environment, to which filters may be added."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # imported only when a page is written

    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
