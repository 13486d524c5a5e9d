"""Printing for commands."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Finding:
    """The result of one of `doctor`'s checks: what was checked, what was found, and whether a run can work with it."""

    what: str
    found: str
    passed: bool = True


def print_table(table: "Table") -> None:
    """Print a table on standard output, as wide as it needs to be if that is not a terminal."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, 160)
    console.print(table)
