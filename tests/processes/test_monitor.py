"""The first failure is written to the failure file for the process that started the launcher, whatever the launcher does.

The test acts as the other process, by a heartbeat file.
"""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from aligndistill.processes import monitor
from aligndistill.processes.monitor import Heartbeat, ProcessMonitor

pytestmark = pytest.mark.process

REPOSITORY = Path(__file__).parents[2]
FAILING = """
import sys
from pathlib import Path
from aligndistill.cli import app as cli
from aligndistill.config.run import Runtime
from aligndistill.errors import TrainingError
from aligndistill.processes import monitor
monitor._meet = lambda runtime: Path(sys.argv[1])
with cli.user_errors(), monitor.monitored(Runtime()):
    raise TrainingError("the cause")
"""
NOT_RESPONDING = FAILING.replace("Runtime()", "Runtime(heartbeat_timeout_seconds=0.5)").replace(
    'raise TrainingError("the cause")', "import time; time.sleep(60)"
)


def write_heartbeat(folder: Path, number: int, heartbeat: Heartbeat) -> None:
    """As a process writes its own: whole."""
    (folder / f"{number}.written").write_text(json.dumps(asdict(heartbeat)))
    os.replace(folder / f"{number}.written", folder / f"{number}.json")


def started(program: str, folder: Path) -> subprocess.Popen[str]:
    """The first of two processes."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "WORLD_SIZE": "2", "RANK": "0", "DS_ACCELERATOR": "cpu"}
    environment["ALIGNDISTILL_LAST_ERROR"] = str(folder / "error")
    return subprocess.Popen([sys.executable, "-c", program, str(folder)], env=environment, stderr=subprocess.PIPE, text=True)


def wait_until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def has_reported_failure(folder: Path) -> bool:
    file = folder / "0.json"
    return file.is_file() and json.loads(file.read_text())["exit_code"] is not None


def heartbeat_of_the_test() -> Heartbeat:
    return Heartbeat(socket.gethostname(), os.getpid())


def test_sigterm_to_the_process_that_failed_does_not_take_the_place_of_the_cause(tmp_path: Path) -> None:
    """DeepSpeed's launcher and torchrun send it as soon as the other process has seen the failure and exited."""
    write_heartbeat(tmp_path, 1, heartbeat_of_the_test())
    with started(FAILING, tmp_path) as process:
        wait_until(lambda: has_reported_failure(tmp_path))
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)  # the signal arrives while it waits for the other process to exit
        write_heartbeat(tmp_path, 1, Heartbeat(socket.gethostname(), os.getpid(), finished=True))
        errors = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "error: the cause\n" in errors
    assert "stopped by" not in errors
    assert (tmp_path / "error").read_text() == "1\nthe cause"


def test_the_cause_is_written_before_the_others_see_the_failure(tmp_path: Path) -> None:
    write_heartbeat(tmp_path, 1, heartbeat_of_the_test())
    with started(FAILING, tmp_path) as process:
        wait_until(lambda: has_reported_failure(tmp_path))
        process.kill()
        process.communicate()
    assert (tmp_path / "error").read_text() == "1\nthe cause"


def test_a_process_that_does_not_respond_is_named_in_the_failure_file(tmp_path: Path) -> None:
    write_heartbeat(tmp_path, 1, heartbeat_of_the_test())
    with started(NOT_RESPONDING, tmp_path) as process:
        process.communicate(timeout=60)
    assert process.returncode == 1
    code, _, message = (tmp_path / "error").read_text().partition("\n")
    assert code == "1"
    assert message.startswith(f"no heartbeat of process 1 (pid {os.getpid()} on {socket.gethostname()}) for ")


def test_the_failure_file_has_the_first_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNDISTILL_LAST_ERROR", str(tmp_path / "error"))
    for number, message in ((1, "the cause"), (0, "a consequence")):
        monkeypatch.setenv("RANK", str(number))
        monitor.write_failure_file(message, 3)
    assert (tmp_path / "error").read_text() == "3\nthe cause"


def test_a_failure_file_that_cannot_be_written_hides_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNDISTILL_LAST_ERROR", str(tmp_path / "no such folder/error"))
    monitor.write_failure_file("the cause", 3)


@pytest.fixture
def of_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProcessMonitor:
    """The first of two processes; it has seen that the second one started."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    present = ProcessMonitor(tmp_path, heartbeat_timeout_seconds=180)
    write_heartbeat(tmp_path, 1, heartbeat_of_the_test())
    present._look()
    return present


@pytest.mark.parametrize("last", [{"finished": True}, {"exit_code": 4}])
def test_a_process_that_finishes_or_fails_during_a_poll_is_not_missing(
    of_two: ProcessMonitor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: dict[str, Any]
) -> None:
    def ends_just_now(pid: int) -> bool:
        write_heartbeat(tmp_path, 1, Heartbeat(socket.gethostname(), pid, **last))
        return False

    monkeypatch.setattr(monitor, "_alive", ends_just_now)
    assert of_two.missing() is None


def test_a_killed_process_that_still_counts_as_alive_is_waited_for(of_two: ProcessMonitor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connections close first, so the others may get an error before it counts as ended."""
    looks = iter([True, True])
    monkeypatch.setattr(monitor, "_alive", lambda pid: next(looks, False))
    missing = of_two.missing(within_seconds=60)
    assert missing is not None
    assert missing.startswith(f"process 1 (pid {os.getpid()} on {socket.gethostname()}) exited without an error message")


def test_a_process_killed_before_its_first_heartbeat_was_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    of_two = ProcessMonitor(tmp_path, heartbeat_timeout_seconds=180)
    write_heartbeat(tmp_path, 1, heartbeat_of_the_test())
    monkeypatch.setattr(monitor, "_alive", lambda pid: False)
    missing = of_two.missing()
    assert missing is not None
    assert missing.startswith("process 1 (pid ")


@pytest.mark.parametrize(("owner", "function"), [(Path, "read_text"), (os, "replace")])
def test_it_beats_and_watches_on_after_a_read_or_a_write_that_failed(
    of_two: ProcessMonitor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: type | ModuleType, function: str
) -> None:
    """As on a network disk whose server was started again."""
    works, watcher, failed = getattr(owner, function), of_two._thread, threading.Event()

    def fails_once(*given: Any, **named: Any) -> Any:
        if threading.current_thread() is watcher and not failed.is_set():
            failed.set()
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return works(*given, **named)

    monkeypatch.setattr(monitor, "HEARTBEAT_SECONDS", 0.01)
    monkeypatch.setattr(owner, function, fails_once)
    of_two.start()
    assert failed.wait(60)
    before = of_two._me.count
    wait_until(lambda: of_two._me.count > before + 2 or not watcher.is_alive())
    assert watcher.is_alive()
    write_heartbeat(tmp_path, 1, Heartbeat(socket.gethostname(), os.getpid(), announced=["a stage"]))
    wait_until(lambda: of_two.has_announced(1, "a stage"))
    of_two.finish()
    watcher.join()
    assert json.loads((tmp_path / "0.json").read_text())["count"] == of_two._me.count


def test_a_heartbeat_that_cannot_be_written_does_not_take_the_place_of_the_cause(
    of_two: ProcessMonitor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a failure on a full disk, say."""

    def fails(*given: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_heartbeat(tmp_path, 1, Heartbeat(socket.gethostname(), os.getpid(), finished=True))
    monkeypatch.setattr(os, "replace", fails)
    of_two.fail(3)
