from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from aligndistill.commands.gpu_checks import gpu_findings
from aligndistill.commands.output import Finding
from aligndistill.commands.plan.memory import MemoryEstimate
from aligndistill.config.run import RunConfig
from tests.e2e.small_run import small_config
from tests.processes.nvidia_smi import A100, H200, put_on_path

pytestmark = pytest.mark.process
GIB = 2**30


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA counts the faster GPU first, `nvidia-smi` goes by slots."""
    gpus = [SimpleNamespace(name="NVIDIA H200", uuid="5d1f"), SimpleNamespace(name="NVIDIA A100-SXM4-40GB", uuid="77aa")]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: gpus[index])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (30 * GIB, 40 * GIB))


@pytest.mark.usefixtures("two_gpus")
def test_a_line_per_gpu_says_what_others_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_on_path(tmp_path, monkeypatch, gpus=f"{A100}\n{H200}\n", computing="GPU-5d1f, 4242\nGPU-5d1f, 17\n")
    first, second = gpu_findings(None)
    assert first == Finding("gpu 0", "NVIDIA H200, 140.4 GiB, bf16, 12.3 GiB in use by other processes (pid 4242, 17)")
    assert second == Finding("gpu 1", "NVIDIA A100-SXM4-40GB, 40.0 GiB, bf16, free")


@pytest.mark.usefixtures("two_gpus")
def test_a_stage_that_does_not_fit_beside_the_others_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """130,540 MiB are 127.5 GiB, 40,521 MiB are 39.6."""
    put_on_path(tmp_path, monkeypatch, gpus=f"{A100}\n{H200}\n")
    estimates = {"small": MemoryEstimate(GIB, 0, 0, 0, host=0), "student-dpo": MemoryEstimate(20 * GIB, GIB, 20 * GIB, 0, host=0)}
    monkeypatch.setattr("aligndistill.commands.gpu_checks.planned_memory", lambda config: estimates)
    first, second = gpu_findings(RunConfig.model_validate(small_config()))
    assert first == Finding("gpu 0", "NVIDIA H200, 140.4 GiB, bf16, 12.3 GiB in use by other processes")
    found = "NVIDIA A100-SXM4-40GB, 40.0 GiB, bf16, free: 39.6 GiB are free, and student-dpo needs about 41.0 GiB"
    assert second == Finding("gpu 1", found, warns=True)
    assert second.passed
    assert second.mark == "WARN"


@pytest.mark.usefixtures("two_gpus")
def test_without_nvidia_smi_torch_tells_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    first, _ = gpu_findings(None)
    assert first.found == "NVIDIA H200, 40.0 GiB, bf16, 10.0 GiB in use, this check's own part included"


@pytest.mark.usefixtures("two_gpus")
def test_a_program_that_fails_is_told_before_the_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_on_path(tmp_path, monkeypatch, otherwise="echo No devices were found; exit 6")
    failed, *gpus = gpu_findings(None)
    assert (failed.what, failed.mark) == ("nvidia-smi", "WARN")
    assert [one.what for one in gpus] == ["gpu 0", "gpu 1"]


def test_gpus_that_torch_cannot_use_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    put_on_path(tmp_path, monkeypatch, gpus=H200)
    (finding,) = gpu_findings(None)
    assert finding.warns
    assert finding.found == "torch can use none of NVIDIA H200: it is a build for CPUs. Training runs on the CPU in float32"
