"""What the machine used between two times: by the counters of its GPUs (NVML) and processors (RAPL), where they can be read."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

RAPL = Path("/sys/class/powercap")
ASSUMED_WATTS_PER_CORE = 10.0
"""Of a server's processor under load: published limits of 150 to 350 W for 16 to 64 cores, with memory. An assumption."""


@dataclass(frozen=True)
class Counters:
    """Energy since some time in the past, joules, by counter; and where each starts again from 0."""

    joules: Mapping[str, float]
    wraps_at: Mapping[str, float]


def read_counters() -> Counters:
    """The counters of the whole machine; none where they cannot be read."""
    found: dict[str, float] = {}
    wraps: dict[str, float] = {}
    for zone in sorted(RAPL.glob("intel-rapl:*")) if RAPL.is_dir() else ():
        if zone.name.count(":") == 1:  # packages, not their parts
            try:
                found[f"RAPL {zone.name}"] = int((zone / "energy_uj").read_text()) / 1e6
                wraps[f"RAPL {zone.name}"] = int((zone / "max_energy_range_uj").read_text()) / 1e6
            except (OSError, ValueError):
                continue
    found.update(_gpus())
    return Counters(found, wraps)


def _gpus() -> Iterator[tuple[str, float]]:
    try:
        import pynvml  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError:
        return
    try:
        pynvml.nvmlInit()
        for number in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(number)
            yield f"NVML {number}", pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3
    except pynvml.NVMLError:
        return


def watt_hours(before: Counters, after: Counters, wall_seconds: float) -> tuple[float, str]:
    """The energy between two readings, and how it is known.

    Without counters it is an estimate: wall time, all cores, `ASSUMED_WATTS_PER_CORE`; a GPU is not in it.
    """
    joules = 0.0
    shared = before.joules.keys() & after.joules.keys()
    for name in shared:
        used = after.joules[name] - before.joules[name]
        joules += used if used >= 0 else used + before.wraps_at.get(name, 0.0)
    if shared:
        return joules / 3600, f"measured, of the whole machine: {', '.join(sorted(shared))}"
    cores = os.cpu_count() or 1
    estimate = wall_seconds * cores * ASSUMED_WATTS_PER_CORE / 3600
    return estimate, f"estimate: wall seconds x {cores} cores x {ASSUMED_WATTS_PER_CORE:g} W assumed, no GPU"
