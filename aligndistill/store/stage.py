"""A stage: a deferred call of a function, identified by a fingerprint under which the store has its result.

A stage is a function of `stages/` and its keyword arguments. Arguments that are stages are its inputs, the others its settings.
The fingerprint hashes all of them by keyword:

- a stage by its own fingerprint, a mapping key by key;
- a section field by field: fields marked `NotHashed` are excluded, and so are those marked `HashedIfSet` that have their default;
  fields marked `ReadsFile` or `ReadsCode` add the content of the file, unless it is built in (see `config/section.py`).
"""

import hashlib
import inspect
import json
import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from aligndistill.config.paths import at_home
from aligndistill.config.plugins import plugin_file
from aligndistill.config.schema import marks
from aligndistill.config.section import HashedIfSet, NotHashed, ReadsCode, ReadsFile, Section
from aligndistill.store.artifacts import content_fingerprint
from aligndistill.store.version import STORE_VERSION

ENDED = "ended"

Make = TypeVar("Make", bound=Callable[..., Any])


@dataclass(frozen=True)
class StageResult:
    """The summary returned by a stage's function: records in and out, dropped records by reason, metrics.

    The metric `ENDED` of a stage that `may_end` says why the stages that wait for it are not run.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Stage:
    """One step of a run.

    Attributes:
        name: shown to users; not part of the fingerprint.
        make: called with a `StageContext` and `given`; writes the result to the context's folder.
        given: its keyword arguments.
        fingerprint: 16 hex digits that change if the result would. Files named in settings are hashed when the stage is created.
        waits_for: a stage that must be finished first although it is not an input, because it may stop the run.
    """

    name: str
    make: Callable[..., StageResult]
    given: Mapping[str, Any]
    fingerprint: str
    waits_for: "Stage | None" = None

    @property
    def together(self) -> bool:
        """Whether it runs in every process of a distributed run, or only in the first."""
        return getattr(self.make, "together", False)

    @property
    def trains(self) -> bool:
        """Whether it trains a model."""
        return getattr(self.make, "trains", False)

    @property
    def collects(self) -> bool:
        """Whether it is run without those of its inputs that are not run."""
        return getattr(self.make, "collects", False)

    @property
    def may_end(self) -> bool:
        """Whether its result may say that the stages that wait for it are not run."""
        return getattr(self.make, "may_end", False)

    @property
    def kind(self) -> str:
        """The module and name of the function: `students.make`."""
        return _kind(self.make)

    @property
    def inputs(self) -> tuple["Stage", ...]:
        """The stages among its arguments."""
        return tuple(_stages_in(self.given))

    @property
    def direct(self) -> tuple["Stage", ...]:
        """Its inputs, and the stage that it waits for."""
        return (*self.inputs, *((self.waits_for,) if self.waits_for else ()))

    @cached_property
    def upstream(self) -> tuple["Stage", ...]:
        """Every stage that must be finished before it, in topological order."""
        found: dict[Stage, None] = {}
        for needed in self.direct:
            found |= dict.fromkeys((*needed.upstream, needed))
        return tuple(found)

    def folder(self, store: Path) -> Path:
        """The folder of its result. Stages with the same fingerprint share a folder, named after the first one created."""
        mine = store / f"{self.name}-{self.fingerprint}"
        return mine if mine.is_dir() else next(iter(sorted(store.glob(f"*-{self.fingerprint}"))), mine)


def together(make: Make) -> Make:
    """Mark a stage's function to run in every process of a distributed run; others run only in the first process."""
    make.together = True  # type: ignore[attr-defined]
    return make


def collects(make: Make) -> Make:
    """Mark a stage's function that reads those of its inputs that exist: mappings without the stages that were not run."""
    make.collects = True  # type: ignore[attr-defined]
    return make


def may_end(make: Make) -> Make:
    """Mark a stage's function whose result may say that the stages that wait for it are not run."""
    make.may_end = True  # type: ignore[attr-defined]
    return make


def trains(make: Make) -> Make:
    """Mark a stage's function that trains a model; it runs in every process."""
    make.trains = True  # type: ignore[attr-defined]
    return together(make)


def stage(
    name: str,
    make: Callable[..., StageResult],
    /,
    *,
    version: int = 1,
    waits_for: Stage | None = None,
    not_hashed: Mapping[str, Any] | None = None,
    **given: Any,
) -> Stage:
    """Create a stage.

    Args:
        name: see `Stage`.
        make: see `Stage`.
        version: increase it when `make` gives another result for the same arguments.
        waits_for: see `Stage`.
        not_hashed: further settings of `make` that may stop the run but change no result; they are not part of the fingerprint.
        given: the keyword arguments of `make`.

    Raises:
        TypeError: `make` does not accept these arguments.
    """
    everything = {**given, **(not_hashed or {})}
    inspect.signature(make).bind(None, **everything)
    by_keyword = {keyword: hashed(value) for keyword, value in given.items()}
    description = {"store": STORE_VERSION, "kind": _kind(make), "version": version, "given": by_keyword}
    fingerprint = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:16]
    return Stage(name, make, everything, fingerprint, waits_for)


def _kind(make: Callable[..., Any]) -> str:
    return f"{make.__module__.rpartition('.')[2]}.{make.__name__}"


@dataclass(frozen=True)
class Pipeline:
    """A stage and all stages that it depends on."""

    last: Stage

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """All stages, in topological order."""
        return (*self.last.upstream, self.last)

    def upstream_of(self, name: str) -> tuple[Stage, ...]:
        """A stage and the stages that it depends on, in topological order.

        Raises:
            KeyError: there is no stage of this name.
        """
        wanted = {stage.name: stage for stage in self.stages}[name]
        return (*wanted.upstream, wanted)


def with_folders(value: Any, folder_of: Callable[[Stage], Path]) -> Any:
    """A stage's argument, with every stage in it replaced by its folder."""
    if isinstance(value, Stage):
        return folder_of(value)
    if isinstance(value, Mapping):
        return {key: with_folders(one, folder_of) for key, one in value.items()}
    return value


def without(value: Any, stages: Container[Stage]) -> Any:
    """A stage's argument, without the entries of mappings that are one of these stages."""
    if not isinstance(value, Mapping):
        return value
    return {key: without(one, stages) for key, one in value.items() if not (isinstance(one, Stage) and one in stages)}


def hashed(value: Any) -> Any:
    """A stage's argument as JSON, for the fingerprint."""
    if isinstance(value, Stage):
        return value.fingerprint
    if isinstance(value, Section):
        return _hashed_section(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: hashed(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, list | tuple):
        return [hashed(one) for one in value]
    if isinstance(value, Mapping):
        return {str(key): hashed(one) for key, one in value.items()}
    if isinstance(value, Path):
        return str(value)
    assert value is None or isinstance(value, str | int | float | bool), f"{type(value)} has no fingerprint"
    return value


def _hashed_section(section: Section) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, of_field in marks(type(section)).items():
        value = getattr(section, name)
        if NotHashed in of_field or (HashedIfSet in of_field and value == type(section).model_fields[name].default):
            continue
        if name not in section.hashed_by_content_alone():
            found[name] = hashed(value)
        if ReadsFile in of_field:
            found[f"{name} content"] = "" if name in section.hashed_by_name_alone() else _content(value)
        if ReadsCode in of_field:
            file = plugin_file(value) if value else None
            found[f"{name} content"] = _content(str(file)) if file else ""
    return found


def _content(path: object) -> str:
    """The content hash of a path; empty if it is none (a list of texts) or does not exist (a Hub name, a built-in template)."""
    if not isinstance(path, str) or not os.path.exists(at_home(path)):
        return ""
    return content_fingerprint(at_home(path))


def _stages_in(value: Any) -> Iterator[Stage]:
    if isinstance(value, Stage):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _stages_in(one)


Given = dict[str, Any]
"""Keyword arguments of stages, by name."""


def pick(known: Mapping[str, Any], names: Iterable[str]) -> Given:
    """The entries with these names."""
    return {name: known[name] for name in names}
