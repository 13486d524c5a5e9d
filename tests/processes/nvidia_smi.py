"""A program in `nvidia-smi`'s place."""

from pathlib import Path

import pytest

H200 = "GPU-5d1f, 143771, 12595, 130540, NVIDIA H200"
A100 = "GPU-77aa, 40960, 4, 40521, NVIDIA A100-SXM4-40GB"


def put_on_path(folder: Path, monkeypatch: pytest.MonkeyPatch, *, gpus: str = "", computing: str = "", otherwise: str = "") -> None:
    """Write the program, and make its folder the whole PATH.

    Args:
        gpus: what it writes when asked about GPUs.
        computing: what it writes when asked about processes.
        otherwise: lines of a shell script that it runs before that.
    """
    script = ["#!/bin/sh", otherwise, 'case "$1" in', f"--query-gpu=*) printf '%s' '{gpus}' ;;"]
    script += [f"--query-compute-apps=*) printf '%s' '{computing}' ;;", "esac"]
    program = folder / "nvidia-smi"
    program.write_text("\n".join(script) + "\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
