"""Ctrl-C and SIGTERM: the first asks for a stop, and a grace time bounds the wait for it; a second Ctrl-C ends the process at once.

Training defers a stop to the end of an optimiser step, where a checkpoint can be saved. Everywhere else it is a
`KeyboardInterrupt`, since work in other stages is handed to the operating system as it arrives.

Python runs a signal's handler only between two instructions of the main thread, and that thread may sit in a collective whose
partner is gone. So a thread of its own reads the signals' numbers as they arrive, and keeps the deadline.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from aligndistill.errors import UserError
from aligndistill.processes.log_format import print_error

STOPPED_EXIT = 5
AT_ONCE_EXIT = 130
GRACE_SECONDS = 25.0
"""DeepSpeed's launcher and torchrun kill what is still there 30 s after their SIGTERM."""
SECONDS_TO_LEAVE_A_FINALISER = 0.05


class _Asked:
    """What was asked of this process; a process gets signals once, so this is one object."""

    def __init__(self) -> None:
        self.by: str | None = None
        self.raised = False
        self.lost = False
        self.deferred = False
        self.grace_seconds = GRACE_SECONDS
        self.report: Callable[[sys.UnraisableHookArgs], object] = sys.__unraisablehook__


_asked = _Asked()


def listen() -> None:
    """Take SIGINT and SIGTERM over, from the main thread."""
    _asked.by, _asked.raised, _asked.lost, _asked.deferred = None, False, False, False
    if sys.unraisablehook is not _raise_again:
        _asked.report, sys.unraisablehook = sys.unraisablehook, _raise_again
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    threading.Thread(target=_keep_deadline, args=(read_end,), name="signals", daemon=True).start()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _ask)


def allow(grace_seconds: float) -> None:
    """How long a stop may take."""
    _asked.grace_seconds = grace_seconds


def asked() -> str | None:
    """The signal that asked this process to stop, if one did."""
    return _asked.by


@contextmanager
def deferred() -> Iterator[None]:
    """Inside, signals are only noted (see `asked`).

    Raises:
        KeyboardInterrupt: at the end, if one arrived meanwhile.
    """
    _asked.deferred = True
    try:
        yield
    finally:
        _asked.deferred = False
    if _asked.by is not None:
        _interrupt()


@contextmanager
def as_interrupt() -> Iterator[None]:
    """What a library made of the `KeyboardInterrupt` of a signal becomes one again: where the signal arrives in a serialiser that
    is written in Python, pydantic raises an error of serialisation.

    Raises:
        KeyboardInterrupt: caused by the exception that was raised instead.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not _asked.raised:
            raise
        raise KeyboardInterrupt(_asked.by) from error


def only_note() -> None:
    """From now on signals are only noted: this process is about to exit and reports the reason itself. The grace time holds."""
    _asked.deferred = True


def _ask(number: int, frame: object) -> None:
    first = _asked.by is None or _asked.lost
    _asked.lost = False
    _asked.by = _asked.by or signal.Signals(number).name
    if first and not _asked.deferred:
        _interrupt()


def _interrupt() -> NoReturn:
    _asked.raised = True
    raise KeyboardInterrupt(_asked.by)


def _raise_again(unraisable: "sys.UnraisableHookArgs") -> None:
    """An exception in a finaliser is reported and lost. The interrupt of a signal is raised again when the finaliser has ended."""
    if not (isinstance(unraisable.exc_value, KeyboardInterrupt) and _asked.raised):
        _asked.report(unraisable)
        return
    _asked.lost = True
    again = threading.Timer(SECONDS_TO_LEAVE_A_FINALISER, os.kill, (os.getpid(), signal.SIGTERM))
    again.daemon = True
    again.start()


def _keep_deadline(read_end: int) -> None:
    interrupts, deadline = 0, None
    while True:
        for number in os.read(read_end, 64):
            if number not in (signal.SIGINT, signal.SIGTERM):
                continue
            interrupts += number == signal.SIGINT
            if interrupts > 1:
                _leave("interrupted twice: ended at once, without saving.", AT_ONCE_EXIT)
            if deadline is None:
                deadline = time.monotonic() + _asked.grace_seconds
                threading.Thread(target=_end_after, args=(deadline,), name="grace time", daemon=True).start()


def _end_after(deadline: float) -> None:
    time.sleep(max(0.0, deadline - time.monotonic()))
    _leave(
        f"the stop took longer than its grace time of {_asked.grace_seconds:.0f} s, so nothing more was saved. "
        "Run the same command again to resume from the last checkpoint.",
        STOPPED_EXIT,
    )


def _leave(message: str, code: int) -> None:
    print_error(message)
    os._exit(code)
