"""Where torch is asked for GPUs."""

import sys
from pathlib import Path

import pytest

from aligndistill.processes.devices import Gpus, find_gpus, may_have_gpu


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


def test_other_devices_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for device in ("nvme0", "nvidiactl", "null"):
        (tmp_path / device).touch()
    assert not may_have_gpu(tmp_path)
    monkeypatch.setattr(sys, "platform", "win32")  # its drivers are found elsewhere
    assert may_have_gpu(tmp_path)


def test_gpus_that_may_not_be_seen_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert find_gpus() == Gpus(count=0, bf16=False)
