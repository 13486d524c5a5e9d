"""Paths that a user gives: `~` at the start is the home folder, wherever one is given. No pydantic: completion needs it, too."""

import os
from pathlib import Path


def at_home(path: str | Path) -> Path:
    """The path with `~` or `~user` replaced by that home folder. Where there is no such user it stays, and names no file."""
    return Path(os.path.expanduser(path))
