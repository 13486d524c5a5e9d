"""How long the rest of a run takes, from how long stages of the same kind took."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from aligndistill.processes.progress import RunProgress
from aligndistill.store.artifacts import read_manifest
from aligndistill.store.stage import Stage


@dataclass(frozen=True)
class Remaining:
    """The time of the stages that are left.

    Attributes:
        seconds: None if no stage of any of their kinds has been measured.
        partial: whether there are kinds that have not been measured, so that it is longer.
    """

    seconds: float | None
    partial: bool


def remaining(left: Iterable[Stage], measured: Mapping[Stage, float]) -> Remaining:
    """How long these stages take.

    Args:
        measured: the seconds of finished stages. Those with the same function are taken to be alike: answers of models, students.
    """
    of_kind = defaultdict(list)
    for stage, seconds in measured.items():
        of_kind[stage.kind].append(seconds)
    kinds = [stage.kind for stage in left]
    known = [fmean(of_kind[kind]) for kind in kinds if kind in of_kind]
    return Remaining(sum(known) if known else None, len(known) < len(kinds))


def begin_stage(shown: RunProgress, stages: Sequence[Stage], stage: Stage, store: Path) -> None:
    """Show that a stage begins, its place among the run's, and how long the rest of the run takes."""
    manifests = {one: read_manifest(one.folder(store)) for one in stages}
    measured = {one: manifest.wall_seconds for one, manifest in manifests.items() if manifest is not None}
    rest = remaining([one for one in stages if one not in measured], measured)
    shown.begin(stage.name, stages.index(stage) + 1, rest.seconds, rest.partial)
