"""The GPUs of this machine. Imports torch, which takes seconds, only where the machine may have a GPU."""

import os
import platform
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

DEVICE_FILES = ("nvidia[0-9]*", "nvmap", "kfd", "dxg")
"""Device files of the drivers: NVIDIA's, NVIDIA's for Jetson, AMD's, and that of WSL."""


@dataclass(frozen=True)
class Gpus:
    """The GPUs that torch can use.

    Attributes:
        bf16: whether they compute in bfloat16.
    """

    count: int = 0
    bf16: bool = False


def find_gpus() -> Gpus:
    """All GPUs that torch can use."""
    if not has_gpu():
        return Gpus()
    import torch

    return Gpus(torch.cuda.device_count(), torch.cuda.is_bf16_supported())


def has_gpu() -> bool:
    """Whether torch can use a GPU."""
    if not may_have_gpu():
        return False
    import torch

    return torch.cuda.is_available()


def may_have_gpu(devices: Path = Path("/dev")) -> bool:
    """Whether this machine may have a GPU, so that torch must be asked."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return False
    return sys.platform != "linux" or any(True for pattern in DEVICE_FILES for _ in devices.glob(pattern))


def count_device_files(devices: Path = Path("/dev")) -> int:
    """The NVIDIA GPUs of this machine that a launcher would use, without importing torch; 0 if there are none."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([one for one in visible.split(",") if one.strip()])
    return sum(1 for _ in devices.glob("nvidia[0-9]*"))


def use_deterministic_kernels() -> None:
    """Have the GPUs compute the same to the bit every time. On CPUs that is so anyway, and nothing changes."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts; else cuBLAS adds up across its streams
    if has_gpu():
        import torch

        # Not `warn_only`, under which torch's memory-efficient attention goes without its deterministic backward pass.
        torch.use_deterministic_algorithms(True)


def machine() -> str:
    """This machine in words: processor, cores, memory, GPUs."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    parts = [_processor(), f"{cores} CPU core{'s' if cores > 1 else ''}", f"{memory_gib:.0f} GiB memory", _gpu_names()]
    return ", ".join(part for part in parts if part)


def _processor(info: Path = Path("/proc/cpuinfo")) -> str:
    text = info.read_text() if info.is_file() else ""
    lines = (line for line in text.splitlines() if line.startswith("model name"))
    return next((line.partition(":")[2].strip() for line in lines), platform.machine())


def _gpu_names() -> str:
    if not has_gpu():
        return "no GPU"
    import torch

    counts = Counter(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
    return ", ".join(f"{count} x {name}" for name, count in counts.items())
