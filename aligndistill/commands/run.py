"""`aligndistill run` and `aligndistill stage`: run the unfinished stages and print the result."""

import time
from typing import Any

import typer

from aligndistill.commands.last_lines import last_lines
from aligndistill.commands.output import print_json, print_table, terminal_width
from aligndistill.config.run import RunConfig
from aligndistill.processes.ranks import is_main_process
from aligndistill.reporting.report import leading_students
from aligndistill.reporting.table import LEAVES_OUT, render_table
from aligndistill.runs.results import Run
from aligndistill.runs.run import run


def run_and_print(config: RunConfig, until: str | None, as_json: bool = False) -> None:
    """Run every unfinished stage, up to `until`, and print the report's table and what to do next if the run is complete.

    Args:
        as_json: print one JSON object instead.

    Raises:
        UserError: a stage failed.
    """
    began = time.monotonic()
    finished = run(config, until)
    if not is_main_process():
        return
    if as_json:
        print_json("run", _values(finished, time.monotonic() - began))
        return
    if not finished.made:
        typer.echo("Nothing to do: every stage of this config is finished.")
    if finished.complete:
        print_table(render_table(finished.report), LEAVES_OUT, str(finished.folder / "report.html"))
        typer.echo()
        for line in last_lines(finished, time.monotonic() - began, terminal_width()):
            typer.echo(line)
    else:
        typer.echo(f"Finished up to {until}. Next: aligndistill view {finished.folder}")


def _values(finished: Run, seconds: float) -> dict[str, Any]:
    """What was made, and the report."""
    stages = {name: str(folder) for name, folder in finished.stages.items()}
    values = {"run": str(finished.folder), "complete": finished.complete, "made": finished.made, "seconds": round(seconds, 3)}
    if not finished.complete:
        return {**values, "stages": stages}
    leading = list(leading_students(finished.report))
    return {**values, "stages": stages, "leading": leading, "report": finished.report.model_dump(mode="json")}


def make_stage(config: RunConfig, name: str) -> None:
    """Run one stage and the stages that it needs.

    Raises:
        UserError: a stage failed, or there is no stage of this name.
    """
    if not run(config, until=name).made:
        typer.echo(f"Nothing to do: {name} is finished.")
