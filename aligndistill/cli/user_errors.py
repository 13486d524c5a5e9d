"""Errors of commands: one message and an exit code for what the user can fix."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from aligndistill.errors import ConfigError, DataError, UserError
from aligndistill.processes import signals
from aligndistill.processes.full_disk import is_full_disk
from aligndistill.processes.log_format import is_json, json_line, print_error
from aligndistill.processes.ranks import world_size


@contextmanager
def user_errors(resumable: bool = False, listens: bool = True) -> Iterator[None]:
    """Turn an error that the user can fix into one message and an exit code; bugs keep their traceback.

    Args:
        resumable: the command that resumes is printed as well, unless the config is wrong or a launcher started this process.
        listens: signals stop the command as they stop a run, with a grace time.
    """
    if listens:
        signals.listen()
    try:
        with signals.as_interrupt():
            yield
    except UserError as error:
        _fail(str(error), error.exit_code, resumable)
    except Exception as error:
        if not is_full_disk(error):
            raise
        where = getattr(error, "filename", None) or "while writing"
        _fail(
            f"the disk is full ({where}). Free some space, then run the same command again to resume: finished work is kept.",
            DataError.exit_code,
            resumable,
        )
    except KeyboardInterrupt as stop:
        by = str(stop) or "SIGINT"
        _fail(f"stopped by {by}. Run the same command again to resume.", signals.STOPPED_EXIT, resumable)


def _fail(message: str, code: int, resumable: bool) -> None:
    sys.stdout.flush()
    print_error(message)
    if resumable and code != ConfigError.exit_code and world_size() == 1:
        line = f"to resume: {shlex.join(['aligndistill', *sys.argv[1:]])}"
        print(json_line(line) if is_json() else line, file=sys.stderr, flush=True)
    raise typer.Exit(code)
