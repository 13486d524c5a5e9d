"""Real processes that get real signals."""

import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.process

# A process that is deaf: its main thread waits in C, where Python runs no handlers, as in a collective whose partner is gone.
DEAF = """
import ctypes
from aligndistill.processes import signals
signals.listen()
signals.allow({grace})
with signals.deferred():
    print("ready", flush=True)
    mutex = ctypes.create_string_buffer(64)
    while True:  # the second time waits for ever
        ctypes.CDLL(None).pthread_mutex_lock(mutex)
"""
LISTENING = """
import time
from aligndistill.processes import signals
signals.listen()
try:
    with signals.deferred():
        print("ready", flush=True)
        while signals.asked() is None:
            time.sleep(0.01)
        print("saved", flush=True)
except KeyboardInterrupt as stop:
    print("stopped by", stop, flush=True)
"""

# A signal in a serialiser that is written in Python: pydantic raises an error of its own in the place of the interrupt.
SERIALISING = """
import time
from pydantic import BaseModel, field_serializer
from aligndistill.processes import signals

class Slow(BaseModel):
    number: int = 0

    @field_serializer("number")
    def slowly(self, number: int) -> int:
        print("ready", flush=True)
        while {waits}:
            time.sleep(0.01)
        raise OSError("of its own")

signals.listen()
try:
    with signals.as_interrupt():
        Slow().model_dump_json()
except KeyboardInterrupt as stop:
    print("stopped by", stop, "through", type(stop.__cause__).__name__, flush=True)
except Exception as error:
    print(type(error).__name__, flush=True)
"""

FINALISING = """
import time
from aligndistill.processes import signals

class Slow:
    def __del__(self) -> None:
        print("ready", flush=True)
        while signals.asked() is None:
            time.sleep(0.01)

signals.listen()
try:
    Slow()
    time.sleep(30)
except KeyboardInterrupt as stop:
    print("stopped by", stop, flush=True)
"""


def started(program: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_deferred_stop_comes_when_the_work_is_saved(number: signal.Signals) -> None:
    with started(LISTENING) as process:
        process.send_signal(number)
        assert process.communicate(timeout=10)[0] == f"saved\nstopped by {number.name}\n"


def test_an_interrupt_that_a_library_turned_into_an_error_is_one_again() -> None:
    with started(SERIALISING.format(waits=True)) as process:
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=10)[0] == "stopped by SIGTERM through PydanticSerializationError\n"


@pytest.mark.parametrize("noted", ["False", "signals.only_note() or signals.asked() is None"])
def test_an_error_without_an_interrupt_stays_an_error(noted: str) -> None:
    """Where a signal was only noted, nothing was interrupted."""
    with started(SERIALISING.format(waits=noted)) as process:
        if noted != "False":
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert process.stdout.read() == "PydanticSerializationError\n"  # some of it may be read already, with the first line


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_in_a_finaliser_is_not_lost(number: signal.Signals) -> None:
    """Python reports an exception there, and goes on."""
    with started(FINALISING) as process:
        process.send_signal(number)
        assert process.communicate(timeout=10) == (f"stopped by {number.name}\n", "")


def test_a_stop_that_takes_too_long_is_cut_off() -> None:
    with started(DEAF.format(grace=0.5)) as process:
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        errors = process.communicate(timeout=10)[1]
        assert 0.4 < time.monotonic() - began < 5
        assert process.returncode == 5
        assert "longer than its grace time" in errors


def test_a_second_interrupt_ends_at_once_and_a_second_sigterm_does_not() -> None:
    with started(DEAF.format(grace=30)) as process:
        for number in (signal.SIGINT, signal.SIGTERM):
            process.send_signal(number)
            time.sleep(0.3)
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=10)[1]
        assert process.returncode == 130
        assert "ended at once" in errors
