"""The stages of a plan: which would run and why, how long they take, what they ask for, and how much disk they need."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import yaml

from aligndistill.chat.http.budget import Spending
from aligndistill.commands.compare.differences import differing
from aligndistill.commands.plan.chats import Estimate
from aligndistill.commands.plan.table import aligned, price_usd, request_seconds
from aligndistill.commands.view.run_folder import RunFolder
from aligndistill.config.load import dump_config
from aligndistill.config.run import RunConfig
from aligndistill.reporting.writing import duration, size_text, wrapped
from aligndistill.store.artifacts import Manifest, read_manifest
from aligndistill.store.stage import Stage

State = Literal["finished", "started", "to do", "not needed"]
MOST_KEYS = 2
BASELINE = "baseline, always added"


@dataclass(frozen=True)
class PlannedStage:
    """A stage, its state, and the folder of its result.

    Attributes:
        reason: why it would run, or what it is there for; empty for a finished stage of the config's own.
        seconds: how long it took, or takes by the time of its requests or of finished stages of its kind; None if unknown.
        requests: to servers, an upper bound.
        usd: their price, an upper bound; None without a price.
        disk_bytes: of its folder, measured or as of finished stages of its kind; None if unknown.
    """

    name: str
    state: State
    folder: Path
    reason: str = ""
    seconds: float | None = None
    requests: int = 0
    usd: float | None = 0.0
    disk_bytes: int | None = None


def planned_stages(
    config: RunConfig,
    stages: Sequence[Stage],
    not_needed: Mapping[Stage, str],
    estimates: Sequence[tuple[str, Estimate]],
    spent: Sequence[Spending],
) -> tuple[PlannedStage, ...]:
    """All stages, in the order in which they run."""
    store = config.runtime.store
    manifests = {stage: read_manifest(stage.folder(store)) for stage in stages}
    of_kind = defaultdict(list)
    for stage, manifest in manifests.items():
        if manifest is not None:
            of_kind[stage.kind].append((manifest.wall_seconds, disk_bytes(manifest)))
    reasons = Reasons(config, {stage for stage, manifest in manifests.items() if manifest is not None})
    found = []
    for stage in stages:
        folder, manifest, alike = stage.folder(store), manifests[stage], of_kind[stage.kind]
        added = BASELINE if stage.name == "student-best_of_n" and "best_of_n" not in config.students else ""
        if manifest is not None:
            found.append(PlannedStage(stage.name, "finished", folder, added, manifest.wall_seconds, 0, 0.0, disk_bytes(manifest)))
            continue
        if stage in not_needed:
            found.append(PlannedStage(stage.name, "not needed", folder, not_needed[stage], 0.0, disk_bytes=0))
            continue
        asked = [one for name, one in estimates if name == stage.name and one.server is not None]
        prices = [price_usd(one, config.budget) for one in asked]
        asking = sum(request_seconds(one, spent) for one in asked)
        found.append(
            PlannedStage(
                name=stage.name,
                state="started" if folder.is_dir() else "to do",
                folder=folder,
                reason="; ".join(
                    filter(None, ("not finished; what is done is kept" if folder.is_dir() else reasons.of(stage), added))
                ),
                seconds=asking or (fmean(seconds for seconds, _ in alike) if alike else None),
                requests=sum(one.asked.calls for one in asked),
                usd=None if None in prices else sum(price or 0.0 for price in prices),
                disk_bytes=round(fmean(size for _, size in alike)) if alike else None,
            )
        )
    return tuple(found)


def disk_bytes(manifest: Manifest) -> int:
    """The size of a finished stage's files."""
    return sum(file.size for file in manifest.files.values())


class Reasons:
    """Why stages would run, by what the run's folder says of the last time."""

    def __init__(self, config: RunConfig, finished: set[Stage]) -> None:
        self._config, self._finished = config, finished
        before = RunFolder(config.runtime.runs / config.name, config.name)
        self._before = {name: folder.name for name, folder in before.folders.items()}
        now: Any = yaml.load(dump_config(config), Loader=yaml.CSafeLoader)  # as the folder's is read
        self._changed = [key for key, _ in differing([before.config, now])] if before.config else []

    def of(self, stage: Stage) -> str:
        """Why this stage would run."""
        waits = next((one.name for one in reversed(stage.direct) if one not in self._finished), None)
        if waits is not None:
            reason = f"after {waits}"
        elif stage.name in self._before:
            student = f"students.{self._config.without_seed(stage.name.removeprefix('student-'))}."
            own = [key for key in self._changed if key.startswith(student)]
            keys = own or [key for key in self._changed if not key.startswith(("students.", "runtime.", "budget."))]
            more = f" and {len(keys) - MOST_KEYS} more" if len(keys) > MOST_KEYS else ""
            reason = f"config changed: {', '.join(keys[:MOST_KEYS])}{more}" if keys else "its data or code changed"
        else:
            reason = "not run yet"
        return reason


def stage_lines(planned: Sequence[PlannedStage], paths: bool, width: int | None = None) -> Iterator[str]:
    """A line for each stage, then one for all that is left.

    Args:
        paths: show the folders, however wide the lines are.
        width: of the terminal, characters; None for no limit.
    """
    asks = any(one.requests for one in planned)
    heads = ("stage", "state", "time", *(("requests", "USD") if asks else ()), "disk", "why", *(("folder",) if paths else ()))
    rows = []
    for one in planned:
        about = "" if one.state == "finished" else "about "
        requests = (f"{one.requests:,}", "no price" if one.usd is None else f"{one.usd:.2f}") if one.requests else ("", "")
        if one.state == "not needed":
            cells = ("", *(("", "") if asks else ()), "")
        else:
            time = "not measured" if one.seconds is None else f"{about}{duration(one.seconds)}"
            size = "not measured" if one.disk_bytes is None else f"{about}{size_text(one.disk_bytes)}"
            cells = (time, *(requests if asks else ()), size)
        rows.append((one.name, one.state, *cells, one.reason, *((str(one.folder),) if paths else ())))
    last = ("why", "folder")
    left = [0, 1, *(place for place, head in enumerate(heads) if head in last)]
    yield from aligned([heads, *rows], left, ("disk", *(("USD", "requests") if asks else ()), "time"), None if paths else width)
    yield ""
    yield from wrapped(total_line(planned), width)


def total_line(planned: Sequence[PlannedStage]) -> str:
    """What is left: stages, time, requests, price, disk."""
    left = [one for one in planned if one.state in ("started", "to do")]
    if not left:
        return f"total: nothing to do, all {len(planned)} stages are finished"
    unmeasured = sum(one.seconds is None for one in left)
    seconds = sum(one.seconds or 0.0 for one in left)
    took = f"{'at least' if unmeasured else 'about'} {duration(seconds)}" if unmeasured < len(left) else "time not measured"
    requests = sum(one.requests for one in left)
    prices = [one.usd for one in left if one.requests]
    price = "no price" if None in prices else f"at most {sum(one or 0.0 for one in prices):.2f} USD"
    sizes = [one.disk_bytes for one in left]
    disk = f"{'at least' if None in sizes else 'about'} {size_text(sum(one or 0 for one in sizes))} on disk"
    parts = [f"{len(left)} of {len(planned)} stages to do", took, *([f"{requests:,} requests", price] if requests else [])]
    return f"total: {', '.join([*parts, disk] if any(sizes) else parts)}"
