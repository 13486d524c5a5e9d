"""The HTML templates beside this file: everything that goes into one is escaped, and a name that is not there is an error."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


def environment() -> "Environment":
    """A fresh one, to which filters may be added."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # only where a page is written

    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
