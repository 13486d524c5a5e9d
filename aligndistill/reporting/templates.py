"""The HTML templates beside this file: all values are escaped, and undefined names are errors."""

import base64
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from aligndistill.reporting import writing
from aligndistill.reporting.texts import visible

if TYPE_CHECKING:
    from jinja2 import Environment


def environment() -> "Environment":
    """A new template environment, to which filters may be added.

    `css` is the style of all pages and `css_hash` its hash for a content security policy, which then forbids every other style.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # imported only when a page is written
    from markupsafe import Markup

    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    css = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    templates.globals |= {"css": Markup(css), "css_hash": Markup(f"'sha256-{digest}'")}
    for name in ("number", "with_interval", "signed", "share", "duration", "large"):
        templates.filters[name] = getattr(writing, name)
    templates.filters["visible"] = visible
    return templates
