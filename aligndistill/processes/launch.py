"""From one process to several: DeepSpeed's launcher as a child, and its end as an ordinary error of this process.

A launcher prints lines of its own behind what its processes said, and tends to lose their exit codes. So the process that failed
first leaves its message in a file, and it is told again here, last, with its exit code.
"""

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from aligndistill.config.load import dump_config
from aligndistill.config.run import RunConfig
from aligndistill.errors import Interrupted, TrainingError, UserError

LAST_ERROR = "ALIGNDISTILL_LAST_ERROR"
"""The environment variable with the path of that file: the exit code on its first line, the message behind it."""

SECONDS_TO_LEAVE = 40
"""More than a launcher takes to end its processes: 30 s."""


class LaunchedError(UserError):
    """What the first process to fail said."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def launch(config: RunConfig, stage: str) -> None:
    """Make a stage, and what it needs, with several processes of this machine.

    Raises:
        UserError: as in the process that failed first.
    """
    with tempfile.TemporaryDirectory(prefix="aligndistill-", ignore_cleanup_errors=True) as folder:
        resolved, last_error = Path(folder, "config.yaml"), Path(folder, "error")
        resolved.write_text(dump_config(config), encoding="utf-8")
        count = ["--num_gpus", str(config.runtime.processes)] if config.runtime.processes else []
        # A port of its own: two runs on one machine would meet at DeepSpeed's usual one.
        start = [sys.executable, "-m", "deepspeed.launcher.runner", *count, "--master_port", str(_free_port())]
        launcher = [*start, "--no_local_rank", "--module"]
        command = [*launcher, "aligndistill", "stage", stage, str(resolved)]
        # What workers need of the environment they inherit.
        process = subprocess.Popen(command, env={**os.environ, LAST_ERROR: str(last_error)})
        try:
            code = process.wait()
        except KeyboardInterrupt:
            process.terminate()
            try:
                process.wait(SECONDS_TO_LEAVE)
            finally:
                process.kill()
            raise
        if code:
            raise _told_again(last_error, code)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
        return port


def _told_again(last_error: Path, code: int) -> UserError:
    if last_error.is_file():
        number, _, message = last_error.read_text(encoding="utf-8").partition("\n")
        return LaunchedError(message, int(number))
    if code == Interrupted.exit_code:
        return Interrupted("stopped by a signal to one of the processes. The same command goes on from where this one stopped.")
    return TrainingError(f"DeepSpeed's launcher ended with exit code {code}; what it said stands above.")
