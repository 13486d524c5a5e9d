"""`aligndistill` commands as real processes, with their results."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

REPOSITORY = Path(__file__).parents[2]
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(REPOSITORY), "COLUMNS": "200"}


@dataclass(frozen=True)
class Ended:
    """A process that has ended: exit code (minus the signal that killed it), standard output, standard error."""

    code: int
    output: str
    errors: str

    @property
    def complaint(self) -> str:
        """The error message; empty where there is none."""
        return self.errors.partition("error: ")[2]


def command(folder: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> Ended:
    """`python -m aligndistill ARGUMENTS` in a folder, all as a user's shell would start it."""
    ended = subprocess.run(
        [sys.executable, "-m", "aligndistill", *arguments],
        cwd=folder,
        env={**os.environ, **ENVIRONMENT, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def ranks(count: int, port: int) -> list[dict[str, str]]:
    """What a launcher sets in the environment of each of so many processes."""
    shared = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]


class ForkServer:
    """The same with the imports done in advance; one command at a time."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.fork_server"],
            cwd=REPOSITORY,
            env={**os.environ, **ENVIRONMENT, "TRANSFORMERS_VERBOSITY": "error", "DS_ACCELERATOR": "cpu"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._line() == "ready"

    def run(
        self,
        folder: Path,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        environments: Sequence[Mapping[str, str]] = (),
        file_size_limit: int | None = None,
        meanwhile: Callable[[int], Any] | None = None,
    ) -> Ended:
        """Run a command to its end, in a process for each of the environments. `meanwhile` is called with the first one's pid."""
        return self._run("aligndistill", folder, arguments, environments or [environment or {}], file_size_limit, meanwhile)

    def run_module(self, module: str, *arguments: str, environments: Sequence[Mapping[str, str]] = ({},)) -> None:
        """Run a program of the tests to its end, in a process for each of the environments.

        Raises:
            AssertionError: it failed.
        """
        ended = self._run(module, REPOSITORY, arguments, environments)
        assert ended.code == 0, ended.errors[-4000:]

    def _run(
        self,
        module: str,
        folder: Path,
        arguments: Sequence[str],
        environments: Sequence[Mapping[str, str]],
        file_size_limit: int | None = None,
        meanwhile: Callable[[int], Any] | None = None,
    ) -> Ended:
        with tempfile.TemporaryDirectory() as streams:
            output, errors = Path(streams, "output"), Path(streams, "errors")
            order = {
                "module": module,
                "arguments": arguments,
                "cwd": str(folder),
                "output": str(output),
                "errors": str(errors),
                "environments": [dict(one) for one in environments],
                "file_size_limit": file_size_limit,
            }
            assert self._server.stdin is not None
            self._server.stdin.write(json.dumps(order) + "\n")
            self._server.stdin.flush()
            pid = json.loads(self._line())[0]
            if meanwhile is not None:
                meanwhile(pid)
            code = os.waitstatus_to_exitcode(int(self._line()))
            return Ended(code, output.read_text() if output.exists() else "", errors.read_text() if errors.exists() else "")

    def _line(self) -> str:
        assert self._server.stdout is not None
        return self._server.stdout.readline().strip()

    def __enter__(self) -> "ForkServer":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.kill()
        self._server.wait()
