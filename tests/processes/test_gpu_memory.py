from pathlib import Path

import pytest

from aligndistill.errors import UserError
from aligndistill.processes.gpu_memory import GpuMemory, read_gpu_memory
from tests.processes.nvidia_smi import A100, H200, put_on_path

pytestmark = pytest.mark.process
MIB = 1024 * 1024


def test_memory_and_processes_are_read_by_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_on_path(tmp_path, monkeypatch, gpus=f"{A100}\n{H200}\n", computing="GPU-5d1f, 4242\nGPU-5d1f, 17\n")
    assert read_gpu_memory() == {
        "GPU-77aa": GpuMemory("NVIDIA A100-SXM4-40GB", 40960 * MIB, 4 * MIB, 40521 * MIB),
        "GPU-5d1f": GpuMemory("NVIDIA H200", 143771 * MIB, 12595 * MIB, 130540 * MIB, (4242, 17)),
    }


def test_a_gpu_that_does_not_tell_its_memory_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = "GPU-0b10, [N/A], [N/A], [N/A], NVIDIA GB10"
    put_on_path(tmp_path, monkeypatch, gpus=f"{shared}\n{H200}\n", computing="GPU-5d1f, [Insufficient Permissions]\n")
    (uuid,) = memories = read_gpu_memory()
    assert uuid == "GPU-5d1f"
    assert memories[uuid].pids == ()


def test_without_the_program_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read_gpu_memory() == {}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("echo 'hello, world'; exit 0", "wrote what cannot be read: 'hello, world'"),
        ("echo GPU-1, many, 2, 3, name; exit 0", "wrote what cannot be read: invalid literal for int"),
        ("echo No devices were found; exit 6", "ended with exit code 6: No devices were found"),
        ("printf '\\377\\n'; exit 0", "wrote what cannot be read: '\ufffd'"),
        ("exit 9", "ended with exit code 9: no message"),
    ],
)
def test_what_cannot_be_read_is_told(lines: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_on_path(tmp_path, monkeypatch, otherwise=lines)
    with pytest.raises(UserError) as told:
        read_gpu_memory()
    assert f"nvidia-smi {message}" in str(told.value)


def test_a_program_that_hangs_is_left_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_on_path(tmp_path, monkeypatch, otherwise=f"echo $$ > {tmp_path}/pid\nwhile :; do :; done")
    with pytest.raises(UserError, match=r"nvidia-smi did not answer within 0\.5 s: the driver of a GPU may hang"):
        read_gpu_memory(deadline_seconds=0.5)
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()
