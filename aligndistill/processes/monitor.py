"""The processes of a run know of each other: each says where it is, and sees when another one failed, died, or fell silent.

Every process writes a small file beside the store each second and reads those of the others, in a thread of its own. So nobody
waits for a process that will never come, no collective is open while one process works alone, and the first cause is what is
printed.
"""

import json
import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path

from aligndistill.config.run import Runtime
from aligndistill.errors import Interrupted, TrainingError, UserError
from aligndistill.processes.ranks import is_main_process, process_rank, world_size

HEARTBEAT_SECONDS = 1.0
POLL_SECONDS = 0.2
SHUTDOWN_SECONDS = 10.0


@dataclass
class Presence:
    """What a process says of itself.

    Attributes:
        beats: grows as long as it lives.
        said: what it has begun and finished, in its own words.
        exit_code: set once it has failed.
        left: it came to its end.
    """

    host: str
    pid: int
    beats: int = 0
    said: list[str] = field(default_factory=list)
    exit_code: int | None = None
    left: bool = False

    @property
    def is_gone(self) -> bool:
        """Whether it ran on this machine and does no more."""
        return self.host == socket.gethostname() and not _alive(self.pid)


@dataclass(frozen=True)
class _Seen:
    presence: Presence
    changed_at: float


class RollCall:
    """One process's part in it. `said`, `wait_for` and `check` are for the main thread."""

    def __init__(self, folder: Path, silence_seconds: float) -> None:
        self._folder, self._silence_seconds = folder, silence_seconds
        self._me = Presence(socket.gethostname(), os.getpid())
        self._others: dict[int, _Seen | None] = {other: None for other in range(world_size()) if other != process_rank()}
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="roll call", daemon=True)

    def begin(self) -> None:
        """Write the first line and start watching."""
        self._write()
        self._thread.start()

    def say(self, words: str) -> None:
        """Let the others know."""
        with self._lock:
            self._me.said.append(words)
        self._write()

    def has_said(self, other: int, words: str) -> bool:
        """Whether another process has said so, as far as is known here."""
        seen = self._others[other]
        return seen is not None and words in seen.presence.said

    def wait_for(self, others: Sequence[int], words: str) -> None:
        """Wait until all of them have said so. Ends with the process where one of them will not."""
        while not all(other == process_rank() or self.has_said(other, words) for other in others):
            time.sleep(POLL_SECONDS)

    def missing(self) -> str | None:
        """Which process died without a word, if one did."""
        self._look()
        for other, seen in self._others.items():
            if seen is not None and not seen.presence.left and seen.presence.exit_code is None and seen.presence.is_gone:
                return (
                    f"{_name(other, seen.presence)} died without a word: killed, perhaps for want of memory (see dmesg). "
                    "The same command goes on from where this one stopped."
                )
        return None

    def fail(self, exit_code: int) -> None:
        """Tell the others, and let them leave first, so that the cause is the last thing said.

        Where several have failed, only the first of them by rank stays to say so.
        """
        with self._lock:
            self._me.exit_code = exit_code
        self._write()
        deadline = time.monotonic() + SHUTDOWN_SECONDS
        while time.monotonic() < deadline:
            self._look()
            present = {other: seen.presence for other, seen in self._others.items() if seen is not None}
            if any(one.exit_code is not None and other < process_rank() for other, one in present.items()):
                os._exit(exit_code)
            if all(one.is_gone or one.left for one in present.values()):
                return
            time.sleep(POLL_SECONDS)

    def leave(self) -> None:
        """This process is done."""
        self._ended.set()
        with self._lock:
            self._me.left = True
        self._write()

    def _keep(self) -> None:
        while not self._ended.wait(HEARTBEAT_SECONDS):
            with self._lock:
                self._me.beats += 1
            self._write()
            self._look()
            if self._me.exit_code is None:
                self._end_with_the_others()

    def _end_with_the_others(self) -> None:
        for other, seen in self._others.items():
            if seen is not None and seen.presence.left:
                continue
            if seen is not None and seen.presence.exit_code is not None:
                os._exit(seen.presence.exit_code)  # it says why
            silent_seconds = time.monotonic() - (seen.changed_at if seen else self._began)
            if silent_seconds > self._silence_seconds:
                last = f" The last that it said: {seen.presence.said[-1]}." if seen and seen.presence.said else ""
                name = _name(other, seen.presence) if seen else f"process {other}"
                print(
                    f"error: {name} has not been heard of for {silent_seconds:.0f} s: it is frozen, or its machine is "
                    f"gone or does not see {self._folder.parent}.{last} The same command goes on from where this one stopped.",
                    file=sys.stderr,
                    flush=True,
                )
                os._exit(TrainingError.exit_code)

    def _look(self) -> None:
        for other, seen in self._others.items():
            try:
                presence = Presence(**json.loads((self._folder / f"{other}.json").read_text()))
            except (FileNotFoundError, json.JSONDecodeError):  # not there yet, or a network disk between two versions
                continue
            if seen is None or presence != seen.presence:
                self._others[other] = _Seen(presence, time.monotonic())

    def _write(self) -> None:
        with self._lock:
            new = self._folder / f"{process_rank()}.new"
            new.write_text(json.dumps(asdict(self._me)))
            os.replace(new, self._folder / f"{process_rank()}.json")


_present: RollCall | None = None


def here() -> RollCall | None:
    """This process's part, where there are others."""
    return _present


@contextmanager
def called(runtime: Runtime) -> Iterator[None]:
    """Join the processes of a launcher, if one started this, for the time of a run.

    Raises:
        TrainingError: not all of them came, or one died.
    """
    global _present
    if world_size() == 1:
        yield
        return
    _present = RollCall(_meet(runtime), runtime.silence_seconds)
    _present.begin()
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        _explain(_present, error)
        raise
    _present.leave()


def _explain(present: RollCall, error: BaseException) -> None:
    """Say it once, where all stop alike; and name the process that died, where this error is only its echo."""
    stopped = isinstance(error, Interrupted | KeyboardInterrupt)
    if not isinstance(error, UserError):
        missing = present.missing()
        if missing is not None:
            present.fail(TrainingError.exit_code)
            _leave_word(missing, TrainingError.exit_code)
            raise TrainingError(missing) from None
    if stopped:
        present.leave()
        if not is_main_process():
            os._exit(Interrupted.exit_code)
        return
    code = error.exit_code if isinstance(error, UserError) else 1
    present.fail(code)
    _leave_word(str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}", code)


def _leave_word(message: str, code: int) -> None:
    """For whatever started the launcher, which prints it last."""
    path = os.environ.get("ALIGNDISTILL_LAST_ERROR")
    if path and not Path(path).exists():
        Path(path).write_text(f"{code}\n{message}", encoding="utf-8")


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
            f"the {world_size()} processes of this run could not meet at {os.environ.get('MASTER_ADDR')}:"
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


def _name(other: int, presence: Presence) -> str:
    return f"process {other} (pid {presence.pid} on {presence.host})"


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def say_to_others(words: str) -> None:
    """Let the other processes of the run know how far this one is."""
    present = here()
    if present is not None:
        present.say(words)


def wait_for_others(words: str, ranks: range | None = None) -> None:
    """Say so, and wait until all processes (or these) have said so, too."""
    present = here()
    if present is not None:
        present.say(words)
        present.wait_for(ranks or range(world_size()), words)
