"""Where torch is asked for GPUs."""

import os
import sys
from pathlib import Path

import pytest
import torch

from aligndistill.processes import devices
from aligndistill.processes.devices import Gpus, count_device_files, find_gpus, may_have_gpu, use_deterministic_kernels


@pytest.fixture(autouse=True)
def on_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize("device", ["nvidia0", "nvidia12", "kfd", "dxg", "nvmap"])
def test_a_driver_has_put_its_device_there(tmp_path: Path, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / device).touch()
    assert may_have_gpu(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not may_have_gpu(tmp_path)


@pytest.mark.parametrize(("visible", "count"), [(None, 2), ("", 0), ("1", 1), ("0,3,5", 3)])
def test_gpus_are_counted_by_their_device_files(
    visible: str | None, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for device in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / device).touch()
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert count_device_files(tmp_path) == count


def test_other_devices_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for device in ("nvme0", "nvidiactl", "null"):
        (tmp_path / device).touch()
    assert not may_have_gpu(tmp_path)
    monkeypatch.setattr(sys, "platform", "win32")  # its drivers are found elsewhere
    assert may_have_gpu(tmp_path)


def test_gpus_that_may_not_be_seen_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert find_gpus() == Gpus(count=0, bf16=False)


@pytest.mark.parametrize("gpu", [True, False])
def test_deterministic_kernels_are_asked_for_where_there_is_a_gpu(gpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(devices, "has_gpu", lambda: gpu)
    monkeypatch.setattr(torch, "use_deterministic_algorithms", asked.append)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # so that what is set here is taken back afterwards
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    use_deterministic_kernels()
    assert asked == [True] * gpu
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    use_deterministic_kernels()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"  # the user's own
