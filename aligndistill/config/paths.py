"""Paths that a user gives: `~` at the start is the home folder, wherever one is given."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator


def at_home(path: str | Path) -> Path:
    """The path with `~` or `~user` replaced by that home folder. Where there is no such user it stays, and names no file."""
    return Path(os.path.expanduser(path))


HomePath = Annotated[Path, AfterValidator(at_home)]
"""A path in a config, whose fingerprint does not depend on it."""

HomeText = Annotated[str, AfterValidator(os.path.expanduser)]
"""A name in a config that may be a path. Paths that are hashed as they were written, such as those of data, are expanded when they
are read instead.
"""
