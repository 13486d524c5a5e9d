"""`aligndistill view` as a user starts it."""

import http.client
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands.view.fake_run import write_run
from tests.e2e.command import ENVIRONMENT, command
from tests.imports import HEAVY, TOLD, imported

pytestmark = pytest.mark.process


def test_it_says_where_it_is_and_ends_quietly(tmp_path: Path) -> None:
    write_run(tmp_path, prompts=4, measured=False)
    server = subprocess.Popen(
        [sys.executable, "-m", "aligndistill", "view", "--no-browser"],
        cwd=tmp_path,
        env={**os.environ, **ENVIRONMENT, **TOLD, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    lines = [server.stdout.readline() for _ in range(3)]
    address = re.fullmatch(r"1 run at http://127\.0\.0\.1:(\d+)/enter\?token=([\w-]{43})\n", lines[0])
    assert address is not None
    assert f"ssh -L {address[1]}:127.0.0.1:{address[1]} " in lines[1]
    assert lines[2] == "Ctrl-C stops\n"
    connection = http.client.HTTPConnection("127.0.0.1", int(address[1]), timeout=30)
    connection.request("GET", f"/enter?token={address[2]}")
    assert connection.getresponse().status == 303
    server.send_signal(signal.SIGINT)
    output, errors = server.communicate(timeout=30)
    assert (server.returncode, output) == (0, "")
    told = [line for line in errors.splitlines() if not line.startswith("import time:")]
    assert told == []
    names = {line.rpartition("|")[2].strip().split(".")[0] for line in errors.splitlines()}
    assert "starlette" in names
    assert not names & (HEAVY - {"jinja2"})


def test_what_cannot_be_viewed_is_said_in_one_line(tmp_path: Path) -> None:
    ended = command(tmp_path, "view")
    assert (ended.code, ended.complaint) == (3, "there are no runs in runs. Give the folder of a run, or --runs FOLDER.\n")
    write_run(tmp_path, prompts=4, measured=False)
    ended = command(tmp_path, "view", "runs/nope")
    assert ended.code == 3
    assert "runs/nope is not a run's folder. Give the folder of a run. Runs here: " in ended.complaint
    ended = command(tmp_path, "view", "--voter", "a/b")
    assert (ended.code, "--voter" in ended.complaint) == (2, True)


def test_pages_are_exported_as_files(tmp_path: Path) -> None:
    write_run(tmp_path, prompts=4, measured=False)
    ended = command(tmp_path, "view", "--export", "out", environment=TOLD)
    written = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.html")}
    assert (ended.code, ended.output) == (0, f"{len(written)} pages written. Open out/index.html\n")
    assert {"index.html", "fake/index.html", "fake/samples.html", "fake/samples-1.html"} <= written
    assert not imported(ended) & (HEAVY - {"jinja2"})
