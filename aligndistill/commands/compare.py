"""`aligndistill compare`: one table for several runs."""

from collections.abc import Iterable
from pathlib import Path

from aligndistill.commands.output import print_table
from aligndistill.reporting.report import read_report
from aligndistill.reporting.table import compare_table


def print_comparison(runs: Iterable[Path]) -> None:
    """Print the reports of finished runs, given by their folders, in one table.

    Raises:
        DataError: a folder has no readable report.
    """
    print_table(compare_table([read_report(folder / "report.json") for folder in runs]))
