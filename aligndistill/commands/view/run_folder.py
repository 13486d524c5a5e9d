"""The folder of a run as the viewer sees it: its plan, its stages and what happens in it. Reads files, owns no process."""

import fcntl
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from aligndistill.commands.view.event_tail import EventTail, LatestEvents
from aligndistill.errors import DataError
from aligndistill.models.folder import read_json
from aligndistill.reporting.report import Report, read_report
from aligndistill.runs.files import EVENTS, PLAN
from aligndistill.store.artifacts import MANIFEST
from aligndistill.store.run_folder import ARTIFACTS

SILENT_SECONDS = 60.0
"""A run without an event for this long is shown as one without a heartbeat."""


@dataclass(frozen=True)
class StageState:
    """A stage of a run.

    Attributes:
        state: `done`, `running`, `failed`, `stopped` or `waiting`.
        event: its last event, if the run that works now has one.
        manifest: of a finished stage.
    """

    name: str
    folder: Path
    inputs: tuple[str, ...]
    state: str
    event: Mapping[str, Any]
    manifest: Mapping[str, Any]


@dataclass(frozen=True)
class RunState:
    """What a run is doing: `running`, `done`, `failed`, `stopped` or `partial`; `note` says more, `command` resumes it."""

    state: str
    note: str
    command: str
    stages: tuple[StageState, ...]
    log: tuple[Mapping[str, Any], ...]

    @property
    def done(self) -> int:
        """How many stages are finished."""
        return sum(stage.state == "done" for stage in self.stages)

    @property
    def running(self) -> StageState | None:
        """The stage that is running."""
        return next((stage for stage in self.stages if stage.state == "running"), None)


class RunFolder:
    """A run, by its folder. `id` is its name in URLs."""

    def __init__(self, path: Path, identity: str) -> None:
        self.path, self.id = path, identity
        self._tail = EventTail(path / EVENTS)

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.path.name

    @cached_property
    def base(self) -> Path:
        """The folder that the paths in `plan.json` and `artifacts.json` are relative to."""
        listed = [*self._artifacts.values(), *(one["folder"] for one in self._plan)]
        for base in (Path.cwd(), *self.path.absolute().parents):
            if any((base / folder).is_dir() for folder in listed):
                return base
        return Path.cwd()

    @property
    def _plan(self) -> list[dict[str, Any]]:
        plan = read_json(self.path / PLAN).get("stages", [])
        return [one for one in plan if isinstance(one, dict) and {"name", "folder", "inputs"} <= one.keys()]

    @property
    def _artifacts(self) -> dict[str, str]:
        return {name: folder for name, folder in read_json(self.path / ARTIFACTS).items() if isinstance(folder, str)}

    @property
    def folders(self) -> dict[str, Path]:
        """The folder of each finished stage, by its name."""
        planned = {one["name"]: one["folder"] for one in self._plan} or self._artifacts
        return {name: self.base / folder for name, folder in planned.items() if (self.base / folder / MANIFEST).is_file()}

    def manifest(self, stage: str) -> Mapping[str, Any]:
        """The manifest of a finished stage; empty if there is none."""
        folder = self.folders.get(stage)
        return read_json(folder / MANIFEST) if folder is not None else {}

    @property
    def config(self) -> dict[str, Any]:
        """The run's config as plain values."""
        try:
            values = yaml.load((self.path / "config.yaml").read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
        except (OSError, yaml.YAMLError):
            return {}
        return values if isinstance(values, dict) else {}

    @property
    def report(self) -> Report | None:
        """The report, if the run has one that this version reads."""
        try:
            return read_report(self.path / "report.json")
        except DataError:
            return None

    @property
    def changed_at(self) -> float:
        """When something was last written here, Unix time."""
        files = (self.path / name for name in (EVENTS, "report.json", "config.yaml", ARTIFACTS))
        return max((file.stat().st_mtime for file in files if file.is_file()), default=0.0)

    def state(self) -> RunState:
        """What the run is doing now."""
        events = self._tail.read()
        alive = is_held(self.path / EVENTS)
        finished = self.folders
        planned = self._plan or [{"name": name, "folder": str(folder), "inputs": []} for name, folder in self._artifacts.items()]
        stages = tuple(
            StageState(
                name=one["name"],
                folder=self.base / one["folder"],
                inputs=tuple(one["inputs"]),
                state="done" if one["name"] in finished else stage_state(events.of_stage.get(one["name"]), alive),
                event=events.of_stage.get(one["name"], {}),
                manifest=read_json(finished[one["name"]] / MANIFEST) if one["name"] in finished else {},
            )
            for one in planned
        )
        state, note = run_state(stages, events, alive)
        command = str((events.first or {}).get("note") or "")
        return RunState(state, note, command, stages, tuple(events.log))


def run_state(stages: Iterable[StageState], events: LatestEvents, alive: bool) -> tuple[str, str]:
    """What a run is doing, from its latest events, and a note."""
    states = {stage.state for stage in stages}
    last, failed = events.last, events.failed
    if alive and last is not None:
        silent = time.time() - float(last.get("t") or 0)
        return "running", f"no heartbeat for {silent:.0f} s" if silent > SILENT_SECONDS else ""
    if states <= {"done"} and states:
        return "done", ""
    if failed is not None:
        note = str(failed.get("note") or "")
        stopped = note in ("SIGINT", "SIGTERM", "KeyboardInterrupt") or note.startswith("stopped by ")
        return "stopped" if stopped else "failed", f"{failed['stage']}: {note}" if failed["stage"] else note
    if last is not None and last["event"] != "end":
        return "stopped", f"in the stage {last['stage']}" if last.get("stage") else ""
    return "partial", "run up to a stage before the report"


def stage_state(event: Mapping[str, Any] | None, alive: bool) -> str:
    """The state of an unfinished stage by its last event."""
    if event is None:
        return "waiting"
    if event["event"] == "fail":
        return "failed"
    return "running" if alive else "stopped"


def find_runs(given: Iterable[Path], below: Path) -> dict[str, RunFolder]:
    """The given runs, or every run in a folder, newest first, by id.

    Raises:
        DataError: a given folder is not a run.
    """
    paths = list(given)
    for path in paths:
        if not is_run(path):
            found = ", ".join(str(one.path) for one in find_runs([], below).values())
            raise DataError(f"{path} is not a run's folder. Give the folder of a run. Runs here: {found or 'none'}.")
    if not paths:
        paths = [path for path in sorted(below.iterdir()) if is_run(path)] if below.is_dir() else []
    runs: dict[str, RunFolder] = {}
    for path in paths:
        number, identity = 1, path.resolve().name
        while identity in runs:
            number += 1
            identity = f"{path.resolve().name}~{number}"
        runs[identity] = RunFolder(path.resolve(), identity)
    return dict(sorted(runs.items(), key=lambda one: -one[1].changed_at))


def is_run(path: Path) -> bool:
    """Whether a folder is one that `aligndistill run` writes."""
    return (path / "config.yaml").is_file() and any((path / name).is_file() for name in (PLAN, ARTIFACTS))


def is_held(path: Path) -> bool:
    """Whether a process holds the lock on a run's events: it is alive."""
    try:
        # Runs hold a shared lock, so only an exclusive one finds them. One reader at a time, or one would take another for a run.
        with (path.parent / "config.yaml").open("rb") as turn, path.open("rb") as file:
            fcntl.flock(turn, fcntl.LOCK_EX)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
