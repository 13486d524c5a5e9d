"""The rows of distillation and preference objectives, at tiny size, with the peers whose environments are installed."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import measure
from benchmarks.measure import run_row
from benchmarks.student_rows import student_rows
from tests.benchmarks.test_gpu_rows import installed


@pytest.mark.process
@pytest.mark.parametrize("name", ["distil-sampled-count", "kto-v32000"])
def test_a_tiny_row_runs_and_all_sides_agree(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "WORK", tmp_path)
    row = dict(student_rows(quick=True))[name]()
    row = replace(row, peers=[peer for peer in row.peers if installed(peer.environment)])
    result = run_row(row, 1, 1, lambda line: None)
    ours = result["rounds"]["aligndistill"][0]["losses"]
    assert len(ours) == row.settings["steps"]
    assert ours[0] == pytest.approx(0.5) or name != "kto-v32000"  # the policy is the reference still
    for peer in row.peers:
        theirs = result["rounds"][peer.label][0]["losses"]
        factor = 1 if peer.same_curve else 1 / row.settings["shown"]
        assert theirs == pytest.approx([factor * loss for loss in ours], rel=1e-4), peer.label
