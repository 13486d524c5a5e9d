"""`aligndistill run` and `aligndistill stage`: makes what is missing, and says what came of it."""

import typer

from aligndistill.commands.output import print_table
from aligndistill.config.run import RunConfig
from aligndistill.processes.ranks import is_main_process
from aligndistill.reporting.report import read_report
from aligndistill.reporting.table import render_table
from aligndistill.runs.run import run


def run_and_print(config: RunConfig, until: str | None) -> None:
    """Make every stage that is missing, up to `until`, and show the report's table where it was asked for.

    Raises:
        UserError: whatever a stage found wrong.
    """
    finished = run(config, until)
    if not is_main_process():
        return
    if not finished.made:
        typer.echo("Nothing to do: every stage of this config is finished.")
    if finished.complete:
        print_table(render_table(read_report(finished.folder / "report.json")))
        typer.echo(f"Report: {finished.folder / 'report.html'}")


def make_stage(config: RunConfig, name: str) -> None:
    """Make one stage and what it needs.

    Raises:
        UserError: whatever a stage found wrong, or there is none of this name.
    """
    if not run(config, until=name).made:
        typer.echo(f"Nothing to do: {name} is finished.")
