"""`aligndistill` commands as real processes, with their results."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
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
    """The same with the imports done in advance.

    Attributes:
        python: a program to start processes with as with `sys.executable`, for `-m` and `-c`.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="forked-")
        self._address, python = f"{self._folder.name}/socket", Path(self._folder.name, "python")
        client = f'exec {sys.executable} -S -E {REPOSITORY}/tests/e2e/forked_python.py {self._address} {sys.executable} "$@"'
        python.write_text(f"#!/bin/sh\n{client}\n")
        python.chmod(0o755)
        self.python = str(python)
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.fork_server", self._address, self.python],
            cwd=REPOSITORY,
            env={**os.environ, **ENVIRONMENT, "TRANSFORMERS_VERBOSITY": "error", "DS_ACCELERATOR": "cpu"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._server.stdout is not None
        assert self._server.stdout.readline().strip() == "ready"

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
        order = {"arguments": ["-m", module, *arguments], "cwd": str(folder), "whole": False, "file_size_limit": file_size_limit}
        with tempfile.TemporaryFile("a+") as output, tempfile.TemporaryFile("a+") as errors, ExitStack() as open_ones:
            running = {}
            for environment in environments:
                server = open_ones.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
                server.connect(self._address)
                message = json.dumps({**order, "environment": dict(environment)}).encode()
                with open(os.devnull) as nothing:
                    socket.send_fds(server, [message], [nothing.fileno(), output.fileno(), errors.fileno()])
                running[server] = int(server.recv(64))
            if meanwhile is not None:
                meanwhile(next(iter(running.values())))
            code = _end_of(running)
            for stream in (output, errors):
                stream.seek(0)
            return Ended(code, output.read(), errors.read())

    def __enter__(self) -> "ForkServer":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.kill()
        self._server.wait()
        self._folder.cleanup()


def _end_of(running: dict[socket.socket, int]) -> int:
    """The first exit code that is not 0, or 0. When one process fails the others are ended, as launchers do."""
    first = 0
    while running:
        for ended in select.select(list(running), [], [])[0]:
            del running[ended]
            code = os.waitstatus_to_exitcode(int(ended.recv(64)))
            if code and not first:
                first = code
                for pid in running.values():
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGTERM)
    return first
