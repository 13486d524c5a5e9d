"""The processes of a run watch each other: each announces its progress, and sees when another one failed, died or hangs.

Every process writes a heartbeat file beside the store each second and reads those of the others, in a thread of its own. So no
process waits for one that will never come, no collective is open while one process works alone, and the first cause is what is
printed.
"""

import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path

from aligndistill.config.run import Runtime
from aligndistill.errors import Interrupted, TrainingError, UserError
from aligndistill.processes import signals
from aligndistill.processes.log_format import print_error
from aligndistill.processes.ranks import is_main_process, process_rank, world_size

HEARTBEAT_SECONDS = 1.0
POLL_SECONDS = 0.2
SHUTDOWN_SECONDS = 10.0
SECONDS_TO_DIE = 1.0
"""A killed process closes its connections a little before the system counts it as ended."""


@dataclass
class Heartbeat:
    """What a process reports of itself.

    Attributes:
        count: grows as long as the process lives.
        announced: what it has started and finished.
        exit_code: set once it has failed.
        finished: it has ended normally.
    """

    host: str
    pid: int
    count: int = 0
    announced: list[str] = field(default_factory=list)
    exit_code: int | None = None
    finished: bool = False

    @property
    def is_gone(self) -> bool:
        """Whether it ran on this machine and no longer does."""
        return self.host == socket.gethostname() and not _alive(self.pid)


@dataclass(frozen=True)
class _Seen:
    heartbeat: Heartbeat
    changed_at: float


class ProcessMonitor:
    """One process's view of the others. `announce` and `wait_for` are for the main thread."""

    def __init__(self, folder: Path, heartbeat_timeout_seconds: float) -> None:
        self._folder, self._heartbeat_timeout_seconds = folder, heartbeat_timeout_seconds
        self._me = Heartbeat(socket.gethostname(), os.getpid())
        self._others: dict[int, _Seen | None] = {other: None for other in range(world_size()) if other != process_rank()}
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="process monitor", daemon=True)

    def start(self) -> None:
        """Write the first heartbeat and start watching."""
        self._write()
        self._thread.start()

    def announce(self, event: str) -> None:
        """Let the others know."""
        with self._lock:
            self._me.announced.append(event)
        self._beat()

    def has_announced(self, other: int, event: str) -> bool:
        """Whether another process has announced this, as far as is known here."""
        seen = self._others[other]
        return seen is not None and event in seen.heartbeat.announced

    def wait_for(self, others: Sequence[int], event: str) -> None:
        """Wait until all of them have announced this. Where one of them fails or hangs, the watching thread ends this process."""
        while not all(other == process_rank() or self.has_announced(other, event) for other in others):
            time.sleep(POLL_SECONDS)

    def missing(self, within_seconds: float = 0.0) -> str | None:
        """Which process exited without an error message, if one did, or does so within that time."""
        deadline = time.monotonic() + within_seconds
        self._look()  # it may have died before the watching thread read its first heartbeat
        while True:
            gone = {other for other, seen in self._others.items() if seen is not None and seen.heartbeat.is_gone}
            self._look()  # only now, else its last heartbeat could come between this look and its end
            for other, seen in self._others.items():
                if other not in gone or seen is None or seen.heartbeat.finished or seen.heartbeat.exit_code is not None:
                    continue
                return (
                    f"{_name(other, seen.heartbeat)} exited without an error message: killed, probably out of memory (see dmesg). "
                    "Run the same command again to resume."
                )
            if time.monotonic() >= deadline:
                return None
            time.sleep(POLL_SECONDS)

    def fail(self, exit_code: int) -> None:
        """Tell the others, and let them exit first, so that the cause is the last message.

        Where several have failed, only the first of them by rank prints its message.
        """
        with self._lock:
            self._me.exit_code = exit_code
        self._beat()
        deadline = time.monotonic() + SHUTDOWN_SECONDS
        while time.monotonic() < deadline:
            self._look()
            others = {other: seen.heartbeat for other, seen in self._others.items() if seen is not None}
            if any(one.exit_code is not None and other < process_rank() for other, one in others.items()):
                os._exit(exit_code)
            if all(one.is_gone or one.finished for one in others.values()):
                return
            time.sleep(POLL_SECONDS)

    def finish(self) -> None:
        """This process is done."""
        self._ended.set()
        with self._lock:
            self._me.finished = True
        self._write()

    def _watch(self) -> None:
        while not self._ended.wait(HEARTBEAT_SECONDS):
            with self._lock:
                self._me.count += 1
            self._beat()
            self._look()
            if self._me.exit_code is None:
                self._exit_with_the_others()

    def _exit_with_the_others(self) -> None:
        for other, seen in self._others.items():
            if seen is not None and seen.heartbeat.finished:
                continue
            if seen is not None and seen.heartbeat.exit_code is not None:
                os._exit(seen.heartbeat.exit_code)  # it prints the cause
            silent_seconds = time.monotonic() - (seen.changed_at if seen else self._started)
            if silent_seconds > self._heartbeat_timeout_seconds:
                last = f" Last announced: {seen.heartbeat.announced[-1]}." if seen and seen.heartbeat.announced else ""
                name = _name(other, seen.heartbeat) if seen else f"process {other}"
                message = (
                    f"no heartbeat of {name} for {silent_seconds:.0f} s: it is not responding, or its machine is down or cannot "
                    f"reach {self._folder.parent}.{last} Run the same command again to resume."
                )
                write_failure_file(message, TrainingError.exit_code)
                print_error(message)
                os._exit(TrainingError.exit_code)

    def _look(self) -> None:
        for other, seen in self._others.items():
            try:
                heartbeat = Heartbeat(**json.loads((self._folder / f"{other}.json").read_text()))
            except (OSError, json.JSONDecodeError):
                # Not written yet, or a network disk that fails for a moment or is between two versions: the next look tries
                # again. A failure that lasts is a process without a heartbeat.
                continue
            if seen is None or heartbeat != seen.heartbeat:
                self._others[other] = _Seen(heartbeat, time.monotonic())

    def _beat(self) -> None:
        """Write the heartbeat if that works now: a full or network disk may fail for a moment, and the next beat tries again. If it
        fails for the timeout, the other processes end the run.
        """
        with suppress(OSError):
            self._write()

    def _write(self) -> None:
        with self._lock:
            new = self._folder / f"{process_rank()}.new"
            new.write_text(json.dumps(asdict(self._me)))
            os.replace(new, self._folder / f"{process_rank()}.json")


_monitor: ProcessMonitor | None = None


def current_monitor() -> ProcessMonitor | None:
    """This process's monitor, where there are other processes."""
    return _monitor


@contextmanager
def monitored(runtime: Runtime) -> Iterator[None]:
    """Watch the other processes of the launcher, if one started this process, for the time of a run.

    Raises:
        TrainingError: not all of them could be reached, or one died.
    """
    global _monitor
    if world_size() == 1:
        yield
        return
    _monitor = ProcessMonitor(_meet(runtime), runtime.heartbeat_timeout_seconds)
    _monitor.start()
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        _report(_monitor, error)
        raise
    _monitor.finish()


def _report(monitor: ProcessMonitor, error: BaseException) -> None:
    """Print it once, where all stop alike; and name the process that died, where this error only follows from that.

    Launchers send SIGTERM to the remaining processes when one has ended. So the cause is written to the failure file before the
    others are told to exit, and from here on a signal is only noted: it must not replace the error that this process reports.
    """
    signals.only_note()
    stopped = isinstance(error, Interrupted | KeyboardInterrupt)
    if not isinstance(error, UserError):
        missing = monitor.missing(0.0 if stopped else SECONDS_TO_DIE)
        if missing is not None:
            write_failure_file(missing, TrainingError.exit_code)
            monitor.fail(TrainingError.exit_code)
            raise TrainingError(missing) from None
    if stopped:
        monitor.finish()
        if not is_main_process():
            os._exit(Interrupted.exit_code)
        return
    code = error.exit_code if isinstance(error, UserError) else 1
    write_failure_file(str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}", code)
    monitor.fail(code)


def write_failure_file(message: str, code: int) -> None:
    """For the process that started the launcher, which repeats it last. The first process to fail writes the file, at once."""
    path = os.environ.get("ALIGNDISTILL_LAST_ERROR")
    if not path:
        return
    new = Path(f"{path}.{process_rank()}")
    with suppress(OSError):  # it is there already; or it cannot be written, which must not hide the error itself
        new.write_text(f"{code}\n{message}", encoding="utf-8")
        os.link(new, path)


def _meet(runtime: Runtime) -> Path:
    """Open the process group, and agree on a folder that no earlier run has used."""
    import torch  # only here: importing it takes seconds, and most commands have one process
    import torch.distributed as dist

    deadline = timedelta(minutes=runtime.collective_minutes)
    try:
        if not dist.is_initialized():
            if torch.cuda.is_available():
                torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
            dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=deadline)
        group = dist.new_group(backend="gloo", timeout=deadline)
        names = [f"{time.time_ns()}"]
        dist.broadcast_object_list(names, src=0, group=group)
    except dist.DistError as error:
        raise TrainingError(
            f"the {world_size()} processes of this run could not connect at {os.environ.get('MASTER_ADDR')}:"
            f"{os.environ.get('MASTER_PORT')} within {runtime.collective_minutes:g} min: {str(error).splitlines()[0]} "
            "Where that port is in use, give the launcher another one by --master_port."
        ) from None
    processes = runtime.store / "processes"
    folder = processes / names[0]
    folder.mkdir(parents=True, exist_ok=True)
    if is_main_process():
        for old in processes.iterdir():
            if old.name.isdigit() and time.time_ns() - int(old.name) > 7 * 86400 * 10**9:
                shutil.rmtree(old, ignore_errors=True)
    return folder


def _name(other: int, heartbeat: Heartbeat) -> str:
    return f"process {other} (pid {heartbeat.pid} on {heartbeat.host})"


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # ended before it was opened, or before it was read
        return False
    return state != "Z"


def announce(event: str) -> None:
    """Let the other processes of the run know how far this one is."""
    monitor = current_monitor()
    if monitor is not None:
        monitor.announce(event)


def wait_for_others(event: str, ranks: range | None = None) -> None:
    """Announce this, and wait until all processes (or these) have announced it, too."""
    monitor = current_monitor()
    if monitor is not None:
        monitor.announce(event)
        monitor.wait_for(ranks or range(world_size()), event)
