"""A stage as a value: a call that was not made yet. Whether it is done, the store knows.

A stage is a function of `stages/` and its keyword arguments. Arguments that are stages or servers are its inputs, the others its
settings. The fingerprint hashes all of them by keyword:

- a stage by its own fingerprint, a mapping key by key;
- a section field by field: fields marked `NotHashed` are left out, those marked `ReadsFile` and `ReadsCode` add the content of
  what they name (see `config/section.py`).
"""

import hashlib
import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from aligndistill.config.plugins import plugin_file
from aligndistill.config.schema import marks
from aligndistill.config.section import NotHashed, ReadsCode, ReadsFile, Section
from aligndistill.store.artifacts import content_fingerprint
from aligndistill.store.version import STORE_VERSION

Make = TypeVar("Make", bound=Callable[..., Any])


@dataclass(frozen=True)
class StageResult:
    """What a stage's function reports: records in and out, records dropped by reason, metrics measured."""

    counts: Mapping[str, int] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Stage:
    """One step of a run.

    Attributes:
        name: what users call it; it decides nothing.
        make: called with a `StageContext` and the given arguments; writes the result into the context's folder.
        given: its keyword arguments.
        fingerprint: 16 hex digits that change when the result would. Files that settings name were read when the stage was built.
        waits_for: a stage that must be finished before, though nothing is read from it: what it finds may stop the run.
    """

    name: str
    make: Callable[..., StageResult]
    given: Mapping[str, Any]
    fingerprint: str
    waits_for: "Stage | None" = None

    @property
    def together(self) -> bool:
        """Whether every process of a distributed run takes part, or only the first."""
        return getattr(self.make, "together", False)

    @property
    def trains(self) -> bool:
        """Whether weights are learned."""
        return getattr(self.make, "trains", False)

    @property
    def kind(self) -> str:
        """The function, as its module and name: `students.make`."""
        return _kind(self.make)

    @property
    def inputs(self) -> tuple["Stage", ...]:
        """The stages that it reads from."""
        return tuple(_stages_in(self.given))

    @cached_property
    def upstream(self) -> tuple["Stage", ...]:
        """Every stage that must be finished before it, in an order in which they can be made."""
        found: dict[Stage, None] = {}
        for needed in (*self.inputs, *((self.waits_for,) if self.waits_for else ())):
            found |= dict.fromkeys((*needed.upstream, needed))
        return tuple(found)

    def folder(self, store: Path) -> Path:
        """Where the result is, or will be. Equal stages share a folder, which has the name of the first that was made."""
        mine = store / f"{self.name}-{self.fingerprint}"
        return mine if mine.is_dir() else next(iter(sorted(store.glob(f"*-{self.fingerprint}"))), mine)


def together(make: Make) -> Make:
    """Mark a stage's function in which every process of a distributed run takes part. Of others the first alone makes the stage."""
    make.together = True  # type: ignore[attr-defined]
    return make


def trains(make: Make) -> Make:
    """Mark a stage's function that learns weights; every process takes part."""
    make.trains = True  # type: ignore[attr-defined]
    return together(make)


def stage(
    name: str, make: Callable[..., StageResult], /, *, version: int = 1, waits_for: Stage | None = None, **given: Any
) -> Stage:
    """A stage of these arguments.

    Args:
        version: raised when `make` would give another result for the same arguments.

    Raises:
        TypeError: `make` does not take them.
    """
    inspect.signature(make).bind(None, **given)
    by_keyword = {keyword: hashed(value) for keyword, value in given.items()}
    description = {"store": STORE_VERSION, "kind": _kind(make), "version": version, "given": by_keyword}
    fingerprint = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:16]
    return Stage(name, make, given, fingerprint, waits_for)


def _kind(make: Callable[..., Any]) -> str:
    return f"{make.__module__.rpartition('.')[2]}.{make.__name__}"


@dataclass(frozen=True)
class Pipeline:
    """Stages in an order in which they can be made; the others lead to the last."""

    last: Stage

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """All of them."""
        return (*self.last.upstream, self.last)

    def upstream_of(self, name: str) -> tuple[Stage, ...]:
        """The stages that one stage needs, and it, in order.

        Raises:
            KeyError: no stage is called so.
        """
        wanted = {stage.name: stage for stage in self.stages}[name]
        return (*wanted.upstream, wanted)


def with_folders(value: Any, folder_of: Callable[[Stage], Path]) -> Any:
    """An argument with every stage in it replaced by its folder."""
    if isinstance(value, Stage):
        return folder_of(value)
    if isinstance(value, Mapping):
        return {key: with_folders(one, folder_of) for key, one in value.items()}
    return value


def hashed(value: Any) -> Any:
    """An argument as JSON, for the fingerprint."""
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
        if NotHashed in of_field:
            continue
        found[name] = hashed(value)
        if ReadsFile in of_field:
            found[f"{name} content"] = _content(value)
        if ReadsCode in of_field:
            file = plugin_file(value) if value else None
            found[f"{name} content"] = _content(str(file)) if file else ""
    return found


def _content(path: str | None) -> str:
    """The hash of what lies at a path; empty for what is not a file (a name on the Hub, a built-in template)."""
    if path is None or not Path(path).expanduser().exists():
        return ""
    return content_fingerprint(Path(path).expanduser())


def _stages_in(value: Any) -> Iterator[Stage]:
    if isinstance(value, Stage):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _stages_in(one)


Given = dict[str, Any]
"""Keyword arguments of stages, by name."""


def pick(known: Mapping[str, Any], names: Iterable[str]) -> Given:
    """Those of these names."""
    return {name: known[name] for name in names}
