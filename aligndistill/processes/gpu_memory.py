"""How much memory of this machine's NVIDIA GPUs is in use, and by which processes, as `nvidia-smi` tells it.

It is read without CUDA, so that this process takes no memory of a GPU itself.
"""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from aligndistill.errors import UserError

DEADLINE_SECONDS = 20.0
"""Where the driver must wake every GPU first, `nvidia-smi` takes some seconds."""

MIB = 2**20
NOT_TOLD = "["
"""How `[N/A]` and `[Not Supported]` begin: where GPU and processor share their memory, or without the rights."""


@dataclass(frozen=True)
class GpuMemory:
    """The memory of a GPU.

    Attributes:
        used_bytes: what all processes hold.
        free_bytes: less than the rest where the driver keeps some for itself.
        pids: the processes that compute on it. A container often sees none of those outside it.
    """

    name: str
    total_bytes: int
    used_bytes: int
    free_bytes: int
    pids: tuple[int, ...] = ()


def read_gpu_memory(deadline_seconds: float = DEADLINE_SECONDS) -> dict[str, GpuMemory]:
    """The memory of every NVIDIA GPU of this machine by its UUID; empty without `nvidia-smi`.

    Raises:
        UserError: `nvidia-smi` failed, took too long, or wrote something else.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        return {}
    gpus = _ask(program, "--query-gpu=uuid,memory.total,memory.used,memory.free,name", deadline_seconds)
    computing = _ask(program, "--query-compute-apps=gpu_uuid,pid", deadline_seconds)
    try:
        pids = list(_pids(computing))
        return dict(_gpus(gpus, pids))
    except ValueError as error:
        raise UserError(f"nvidia-smi wrote what cannot be read: {error}") from None


def _gpus(text: str, pids: list[tuple[str, int]]) -> Iterator[tuple[str, GpuMemory]]:
    for line in text.splitlines():
        uuid, total, used, free, name = _fields(line, 5)
        if NOT_TOLD in total + used + free:
            continue
        of_this = tuple(pid for where, pid in pids if where == uuid)
        yield uuid, GpuMemory(name, int(total) * MIB, int(used) * MIB, int(free) * MIB, of_this)


def _pids(text: str) -> Iterator[tuple[str, int]]:
    for line in text.splitlines():
        uuid, pid = _fields(line, 2)
        if NOT_TOLD not in pid:
            yield uuid, int(pid)


def _fields(line: str, count: int) -> list[str]:
    found = [part.strip() for part in line.split(",", count - 1)]
    if len(found) < count or not found[0].startswith(("GPU-", "MIG-")):
        raise ValueError(repr(line[:80]))
    return found


def _ask(program: str, query: str, deadline_seconds: float) -> str:
    """What `nvidia-smi` writes. Not by `subprocess.run`: that waits for a killed process, which may hang in the driver."""
    command = [program, query, "--format=csv,noheader,nounits"]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace"
    )
    try:
        text, _ = process.communicate(timeout=deadline_seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=1)
        raise UserError(f"nvidia-smi did not answer within {deadline_seconds:g} s: the driver of a GPU may hang") from None
    if process.returncode:
        last = (text.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"nvidia-smi ended with exit code {process.returncode}: {last[:200]}")
    return text
