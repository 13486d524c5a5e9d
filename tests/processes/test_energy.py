from pathlib import Path

import pytest

from aligndistill.processes import energy
from aligndistill.processes.energy import Counters, read_counters, watt_hours


def test_counters_are_summed_and_may_start_again() -> None:
    before = Counters({"RAPL a": 90.0, "RAPL b": 10.0}, {"RAPL a": 100.0, "RAPL b": 100.0})
    after = Counters({"RAPL a": 26.0, "RAPL b": 10.0 + 3564.0}, {"RAPL a": 100.0, "RAPL b": 100.0})
    hours, how = watt_hours(before, after, wall_seconds=9.0)
    assert hours == pytest.approx((36 + 3564) / 3600)
    assert how == "measured, of the whole machine: RAPL a, RAPL b"


def test_an_estimate_says_what_it_assumes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy.os, "cpu_count", lambda: 4)
    hours, how = watt_hours(Counters({}, {}), Counters({}, {}), wall_seconds=90.0)
    assert hours == pytest.approx(1.0)  # 90 s x 4 cores x 10 W
    assert how == "estimate: wall seconds x 4 cores x 10 W assumed, no GPU"


def test_processors_are_read_once_without_their_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for zone, joules in (("intel-rapl:0", 5), ("intel-rapl:0:0", 3), ("intel-rapl:1", 7)):
        (tmp_path / zone).mkdir()
        (tmp_path / zone / "energy_uj").write_text(f"{joules * 10**6}\n")
        (tmp_path / zone / "max_energy_range_uj").write_text("9000000\n")
    (tmp_path / "intel-rapl:2").mkdir()  # not readable for users
    monkeypatch.setattr(energy, "RAPL", tmp_path)
    monkeypatch.setattr(energy, "_gpus", lambda: iter([("NVML 0", 11.0)]))
    found = read_counters()
    assert found.joules == {"RAPL intel-rapl:0": 5.0, "RAPL intel-rapl:1": 7.0, "NVML 0": 11.0}
    assert found.wraps_at["RAPL intel-rapl:0"] == 9.0
