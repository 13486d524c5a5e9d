"""The configs and the data of the quickstart that come with the package."""

from collections.abc import Iterator
from pathlib import Path

_PACKAGE = Path(__file__).parents[2]

QUICKSTART = ("data/quickstart", "examples/quickstart")
"""Folders that the configs of the quickstart read, relative to the working directory."""


def shipped() -> Path:
    """The folder with `configs`, `data` and `examples`: inside an installed package, beside it in a clone."""
    inside = _PACKAGE / "shipped"
    return inside if inside.is_dir() else _PACKAGE.parent


def templates() -> dict[str, Path]:
    """The complete configs by name."""
    return {path.stem.replace("_", "-"): path for path in sorted((shipped() / "configs").glob("*.yaml"))}


def quickstart_files() -> Iterator[tuple[Path, Path]]:
    """Every file that a config of the quickstart reads: where it is, and its path below the working directory."""
    root = shipped()
    for folder in QUICKSTART:
        for path in sorted((root / folder).iterdir()):
            if path.is_file():
                yield path, path.relative_to(root)
