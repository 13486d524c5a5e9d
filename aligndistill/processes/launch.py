"""From one process to several: DeepSpeed's launcher as a child process, and its failure as an ordinary error of this process.

A launcher prints lines of its own after those of its processes, and tends to lose their exit codes. So the process that failed
first writes its message to a file, and the message is repeated here, last, with its exit code.
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
"""The environment variable with the path of that file: the exit code on its first line, then the message."""

LAUNCHER_SHUTDOWN_SECONDS = 40
"""More than a launcher takes to end its processes: 30 s."""


class LauncherError(UserError):
    """The error of the process that failed first."""

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
        # A port of its own: two runs on one machine would both use DeepSpeed's default.
        start = [sys.executable, "-m", "deepspeed.launcher.runner", *count, "--master_port", str(_free_port())]
        launcher = [*start, "--no_local_rank", "--module"]
        command = [*launcher, "aligndistill", "stage", stage, str(resolved)]
        # Workers inherit this environment.
        process = subprocess.Popen(command, env={**os.environ, LAST_ERROR: str(last_error)})
        try:
            code = process.wait()
        except KeyboardInterrupt:
            process.terminate()
            try:
                process.wait(LAUNCHER_SHUTDOWN_SECONDS)
            finally:
                process.kill()
            raise
        if code:
            raise first_failure(last_error, code)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
        return port


def first_failure(last_error: Path, code: int) -> UserError:
    """The error in the failure file; where there is none, that the launcher ended with this exit code."""
    if last_error.is_file():
        number, _, message = last_error.read_text(encoding="utf-8").partition("\n")
        return LauncherError(message, int(number))
    if code == Interrupted.exit_code:
        return Interrupted("stopped by a signal to one of the processes. Run the same command again to resume.")
    return TrainingError(f"DeepSpeed's launcher ended with exit code {code}; see its output above.")
