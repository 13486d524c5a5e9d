"""Printing for commands."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any

import aligndistill

if TYPE_CHECKING:
    from rich.table import Table

WIDTH_OF_LOGS = 160
"""Characters of a line where the output is not a terminal; tables are wider where they need to be."""

JSON_SCHEMA = 1
"""The version of the objects that `--json` prints; it grows when a key changes its meaning or goes away."""


def print_json(command: str, values: Mapping[str, Any]) -> None:
    """Print the one object of `--json` on standard output, with the versions and the command's name first."""
    print(json.dumps({"schema": JSON_SCHEMA, "aligndistill": aligndistill.__version__, "command": command, **values}, default=str))


def terminal_width() -> int | None:
    """Of standard output, characters; None where that is not a terminal."""
    return get_terminal_size().columns if sys.stdout.isatty() else None


@dataclass(frozen=True)
class Finding:
    """The result of one of `doctor`'s checks.

    Attributes:
        what: what was checked.
        passed: whether a run can work with what was found.
        warns: whether a run may come to need more than what was found.
    """

    what: str
    found: str
    passed: bool = True
    warns: bool = False

    @property
    def mark(self) -> str:
        """What its line begins with."""
        return "BAD" if not self.passed else "WARN" if self.warns else "ok"


def print_table(table: "Table", leaves_out: Sequence[str] = (), see: str = "report.html") -> None:
    """Print a table on standard output, as wide as it needs to be if that is not a terminal.

    Args:
        leaves_out: headings of columns that a narrow terminal does not show, the first one first.
        see: where these are.
    """
    from rich.console import Console

    from aligndistill.reporting.fitting import fit, natural_width

    console = Console()
    if console.file.isatty():  # FORCE_COLOR makes rich take any output for a terminal
        fit(table, console.width, leaves_out, see)
    else:
        console.width = max(console.width, natural_width(table), WIDTH_OF_LOGS)
    console.print(table)
