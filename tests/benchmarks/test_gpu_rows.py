"""The rows for a GPU: run for real at tiny size on the CPU, and skipped, with a message, where there is no GPU."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import measure
from benchmarks.environments import FOLDER, PEERS, ROOT, python_of
from benchmarks.gpu_rows import gpu_rows
from benchmarks.measure import curve_difference, measured_rate, run_row, summary
from benchmarks.table import table
from tests.e2e.command import ForkServer

NAMES = [name for name, _ in gpu_rows(quick=True)]
MACHINE = {"cpu": "a CPU", "cores": 2, "gpus": []}


def installed(environment: str) -> bool:
    marker = FOLDER / environment / ".installed"
    return marker.exists() and marker.read_text().split() == [*PEERS[environment]]


@pytest.fixture(scope="module")
def rate() -> dict[str, Any]:
    """This machine's, measured once for all rows."""
    return measured_rate(1)


@pytest.mark.process
@pytest.mark.parametrize("name", NAMES)
def test_a_tiny_row_runs_and_both_sides_agree(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: dict[str, Any], forked: ForkServer
) -> None:
    """The peers take part where their environments are installed."""
    monkeypatch.setattr(measure, "WORK", tmp_path)
    monkeypatch.setattr(measure, "measured_rate", lambda threads: rate)
    monkeypatch.setattr(measure, "python_of", lambda side: forked.python if side == "ours" else python_of(side))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    row = dict(gpu_rows(quick=True))[name]()
    row = replace(row, peers=[peer for peer in row.peers if installed(peer.environment)])
    result = run_row(row, 1, 1, lambda line: None)
    ours = result["rounds"]["aligndistill"][0]
    assert ours["losses"]
    assert len(ours["gradient_norms"] if "dpo" in name else ours["losses"]) == 8  # steps, or greedy answers
    share = result["flops"] / ours_seconds(result) / result["matrix_rate"]["flops_per_second"]
    assert result["sides"]["aligndistill"]["share"] == pytest.approx(share)
    assert 0 < share < 1
    for peer in row.peers:
        if peer.same_curve:
            assert result["sides"][peer.label]["equal_work"], result["sides"][peer.label]["curve_difference"]
    assert not (tmp_path / name / "policy").exists(), "models are large"


def ours_seconds(result: dict[str, Any]) -> float:
    return float(result["sides"]["aligndistill"]["seconds"])


@pytest.mark.process
def test_without_a_gpu_the_rows_are_skipped_with_a_message(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "gpu", "--results", str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        line for name in NAMES for line in (name, "  skipped: it needs a GPU, and there is none here")
    ]
    assert list(tmp_path.iterdir()) == []


def one(seconds: float, losses: list[float]) -> dict[str, Any]:
    return {"seconds": [seconds], "samples": 1, "added_bytes": 2**20, "losses": losses}


@pytest.mark.parametrize(("tolerance", "word"), [(2e-2, "yes, 1e-02 (within 2e-02)"), (1e-4, "**no**, 1e-02 (within 1e-04)")])
def test_the_table_has_a_section_for_a_gpu_with_shares_and_tolerance(tolerance: float, word: str) -> None:
    row = replace(dict(gpu_rows(quick=True))["gpu-dpo-lora-7b"](), tolerance=tolerance)
    rounds = {"aligndistill": [one(1.0, [0.5])], row.peers[0].label: [one(2.0, [0.51])]}
    assert curve_difference(*(found[0] for found in rounds.values())) == pytest.approx(0.01)
    result = summary(row, rounds) | {
        "quick": False,
        "matrix_rate": {"flops_per_second": 5e14, "size": 8192, "dtype": "bfloat16", "device": "cuda"},
    }
    result["sides"]["aligndistill"]["share"], result["sides"][row.peers[0].label]["share"] = 0.5, 0.25
    text = table({"machine": MACHINE, "rows": {row.name: result}})
    section = text[text.index("## On a GPU") :]
    assert f"| **2.00** (2.00 to 2.00) | 1 | 1 | 1.00 | 50.0% | 25.0% | {word} | >= 1.5x, share >= 45 % |" in section
    assert "500 TFLOP/s (8192^3, bfloat16, cuda)" in section


def test_the_table_has_no_such_section_without_such_a_row() -> None:
    row = replace(dict(gpu_rows(quick=True))["gpu-dpo-lora-7b"](), gpu=False)
    rounds = {"aligndistill": [one(1.0, [0.5])], row.peers[0].label: [one(2.0, [0.5])]}
    text = table({"machine": MACHINE, "rows": {row.name: summary(row, rounds) | {"quick": False}}})
    assert "GPU" not in text.replace(row.says, "")
    assert "**2.00**" in text
