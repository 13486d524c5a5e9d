"""A stage as a value: its name, what makes it, what it depends on. Whether it is done, the store knows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from aligndistill.store.artifacts import fingerprint


@dataclass(frozen=True)
class Made:
    """What a maker reports: records in and out, records dropped by reason, figures measured."""

    counts: Mapping[str, int] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """One step of a run.

    Attributes:
        name: what it makes, a noun; students carry theirs behind a dash.
        make: called as `make(work, *settings)`; writes the result into `work.folder`.
        settings: what changes the result besides the inputs; hashed.
        inputs: the stages it reads from.
        version: raised when `make` would give another result for the same settings.
        all_processes: whether every process of a distributed run takes part (training, local models that write or judge), or only
            the first.
        after: stages that must be finished before, though nothing is read from them: what they find may stop the run.
    """

    name: str
    make: Callable[..., Made]
    settings: tuple[Any, ...]
    inputs: Mapping[str, "Stage"]
    seed: int
    version: int = 1
    all_processes: bool = False
    after: tuple["Stage", ...] = ()

    @cached_property
    def fingerprint(self) -> str:
        """What the result depends on, as a hash."""
        inputs = {name: stage.fingerprint for name, stage in self.inputs.items()}
        return fingerprint(self.name.partition("-")[0], self.version, (*self.settings, self.seed), inputs)

    def folder(self, store: Path) -> Path:
        """Where the result is, or will be."""
        return store / f"{self.name}-{self.fingerprint}"
