"""`aligndistill view`: runs in a browser, on this machine alone."""

import socket
import webbrowser
from collections.abc import Sequence
from pathlib import Path

import typer

from aligndistill.commands.view.ballots import voter_name
from aligndistill.commands.view.run_folder import find_runs
from aligndistill.commands.view.site import Site
from aligndistill.errors import DataError


def view(
    runs: Sequence[Path], below: Path, port: int, voter: str | None, read_only: bool, browser: bool, export: Path | None
) -> None:
    """Serve the pages until Ctrl-C, or write them as files.

    Raises:
        DataError: there is no run, the port is in use, or the export cannot be written.
        ConfigError: the voter's name cannot be a file's name.
    """
    found = find_runs(runs, below)
    if not found:
        raise DataError(f"there are no runs in {below}. Give the folder of a run, or --runs FOLDER.")
    site = Site(found, voter_name(voter), read_only)
    if export is not None:
        from aligndistill.commands.view.export import export_site

        typer.echo(f"{export_site(site, export)} pages written. Open {export / 'index.html'}")
        return
    from aligndistill.commands.view.server import Viewer, lines_to_print

    viewer = Viewer(site, port)
    for line in lines_to_print(viewer, found.values(), socket.gethostname()):
        typer.echo(line)
    if browser:
        webbrowser.open(viewer.address)
    try:
        viewer.serve()
    finally:
        viewer.close()
