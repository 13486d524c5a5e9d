"""Fits a table to a terminal: columns are left out whole, so that no number is cut, and named."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from aligndistill.reporting.writing import hidden_columns

UNBOUNDED = 10_000


def natural_width(table: Table) -> int:
    """The width at which no cell of the table wraps, in characters. Title and caption wrap anywhere."""
    return Console(width=UNBOUNDED, force_terminal=False).measure(table).maximum  # a dumb terminal is 80 wide, whatever is given


def fit(table: Table, width: int, leaves_out: Sequence[str], see: str) -> None:
    """Leave out columns until the table is narrow enough, and say so in its caption. What is still too wide wraps.

    Args:
        width: of the terminal, characters.
        leaves_out: headings of the columns that may go, the first one first.
        see: where all columns are.
    """
    headings = [str(column.header) for column in table.columns]
    for heading in leaves_out:
        if natural_width(table) <= width:
            break
        kept = [column for column in table.columns if str(column.header) != heading]
        table.columns[:] = kept
        for number, column in enumerate(kept):
            column._index = number
    hidden = [heading for heading in headings if heading not in {str(column.header) for column in table.columns}]
    for column in table.columns:
        column.no_wrap, column.overflow = False, "fold"  # never cut
    if hidden:
        table.caption = Text("\n".join(filter(None, [str(table.caption or ""), hidden_columns(hidden, see)])))
