"""From YAML files and `section.key=value` to a checked `RunConfig`, and back to YAML."""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import ValidationError

from aligndistill.config.checks import check
from aligndistill.config.models import BROUGHT, LocalModel
from aligndistill.config.paths import at_home
from aligndistill.config.problems import Problem, Where, explain
from aligndistill.config.run import RunConfig
from aligndistill.config.schema import KeyPath, sections_in
from aligndistill.config.secrets import redact
from aligndistill.config.yaml import Document, dump_yaml, read_yaml, read_yaml_file
from aligndistill.errors import ConfigError

ConfigFiles: TypeAlias = str | Path | Sequence[str | Path]
"""One config file, or several that compose left to right."""

RENAMED: dict[KeyPath, str] = {("runtime", "silence_seconds"): "heartbeat_timeout_seconds"}
"""Old keys that are still read, with a warning: the path of each, and its new name."""

_BY_NAME: tuple[KeyPath, ...] = (("students",), ("models",))
"""Sections whose keys are names of the user's: null in a later file removes one."""


@dataclass(frozen=True)
class LoadedConfig:
    """A checked config, with what was read.

    Attributes:
        data: of all documents together.
    """

    config: RunConfig
    documents: tuple[Document, ...]
    data: Mapping[str, Any]

    def where(self, path: KeyPath) -> Where:
        """Where a key was written or, if it is missing, its section. The last file that sets it counts."""
        return _place(path, self.documents, self.data)


def load_config(paths: ConfigFiles, overrides: str | Sequence[str] = ()) -> RunConfig:
    """Read one file or several, and overrides, into one checked config.

    Files compose left to right, and the overrides come last, as if they were one more file:

    - Sections merge key by key. Everything else (numbers, texts, lists) is replaced; `null` disables an optional section,
      and removes a student or a model of an earlier file.
    - A section whose `kind` changes is replaced as a whole, because the keys of the old kind do not apply to the new one: an
      overlay with `judge: {kind: pairwise, ...}` removes all settings of a likelihood judge. A model without `kind` counts
      as `local`. A section that has no kind yet is merged.
    - An override is `section.key=value`, its value read as YAML: `a.b=1e-6`, `a.b=null`, `a.b=[x, y]`, `a={b: 1, c: 2}`, and
      `a.b=` is null. If a key is overridden twice, the later override applies. Write a name that contains a dot in braces:
      `students={dpo-0.1: {learning_rate: 1e-6}}`.

    Paths in a config are relative to the working directory, not to the config file.

    Args:
        paths: the file or files, each with a mapping at the top.
        overrides: `section.key=value` arguments, or a single one.

    Raises:
        ConfigError: with every problem found, one per line, each with its file and line (or argument), its key and what to do.
            Values that may be secrets are not shown. Rules between sections are checked once each section is valid.
    """
    return read_config(paths, overrides).config


def read_config(paths: ConfigFiles, overrides: str | Sequence[str] = ()) -> LoadedConfig:
    """`load_config`, with the place of every key.

    Raises:
        ConfigError: see `load_config`.
    """
    files = [at_home(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
    documents = [read_yaml_file(path, index) for index, path in enumerate(files)]
    documents.append(_read_overrides([overrides] if isinstance(overrides, str) else overrides, len(files)))
    for document in documents:
        _rename_old_keys(document)
    problems = [problem for document in documents for problem in document.problems]
    if any(document.data is None for document in documents):
        raise _error(problems, documents, {})

    data: dict[str, Any] = {}
    for document in documents:
        data = _merge(data, document.data, ())
    try:
        config = RunConfig.model_validate_json(json.dumps(data), strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        raise _error([*problems, *explain(error)], documents, data) from None
    problems += check(config)
    if problems:
        raise _error(problems, documents, data)
    return LoadedConfig(config, tuple(documents), data)


def as_config(config: RunConfig | ConfigFiles) -> RunConfig:
    """The config itself, or the one in these files.

    Raises:
        ConfigError: as `load_config`.
    """
    return config if isinstance(config, RunConfig) else load_config(config)


def dump_config(config: RunConfig) -> str:
    """`written_out` as YAML; `load_config` reads an equal config from it."""
    return dump_yaml(written_out(config))


def written_out(config: RunConfig) -> dict[str, Any]:
    """The config as a file says it, with every default, except where a student of another run is used: what that brings is
    not written, because a default in a file counts as given and would replace it.
    """
    data = config.model_dump(mode="json", by_alias=True)
    for path, section in sections_in(config):
        if isinstance(section, LocalModel) and section.run is not None:
            written: Any = data
            for key in path:
                written = written[key]
            for name in set(BROUGHT) - section.model_fields_set:
                del written[name]
    return data


def _read_overrides(overrides: Sequence[str], first_index: int) -> Document:
    """All overrides, combined into one document."""
    combined = Document({})
    for index, override in enumerate(overrides, first_index):
        key, equals, text = override.partition("=")
        path = tuple(key.split("."))
        where = Where(index, redact(f"argument {key}=...") if equals else "argument")
        if not equals or not all(path):
            shown = f"'{override}'" if not equals else f"'{key}'"
            problem = Problem((), f"{shown} is not of the form section.key=value", where)
            combined.problems.append(problem)
            continue
        document = read_yaml(text, where, path)
        combined.problems += document.problems
        if document.data is None and document.problems:
            continue
        section = combined.data
        for depth, part in enumerate(path[:-1], 1):
            combined.places[path[:depth]] = where
            if not isinstance(section.get(part), dict):
                section[part] = {}
            section = section[part]
        section[path[-1]] = document.data
        combined.places |= {path: where, **document.places}
    return combined


def _rename_old_keys(document: Document) -> None:
    """Replace old keys by their new names, with a warning for each. With both names in a document, the old one is an error."""
    for path, new_name in RENAMED.items():
        section = document.data
        for part in path[:-1]:
            section = section.get(part) if isinstance(section, dict) else None
        if not isinstance(section, dict) or path[-1] not in section or new_name in section:
            continue
        section[new_name] = section.pop(path[-1])
        new_path = (*path[:-1], new_name)
        if path in document.places:
            document.places[new_path] = document.places.pop(path)
        old, new = ".".join(map(str, path)), ".".join(map(str, new_path))
        warnings.warn(
            f"the config key {old} is now called {new}: rename it; the old name will be removed.", FutureWarning, stacklevel=4
        )


def _merge(base: Any, overlay: Any, path: KeyPath) -> Any:
    if not isinstance(base, dict) or not isinstance(overlay, dict):
        return overlay
    kind = base.get("kind", _implied_kind(path))
    if kind is not None and overlay.get("kind", kind) != kind:
        return overlay
    if path[-1:] == ("demonstrations",) and ("label" in base) != ("label" in overlay):  # a file, or what a model writes
        return overlay
    merged = {key: _merge(base[key], value, (*path, key)) if key in base else value for key, value in overlay.items()}
    removed = {key for key in base if overlay.get(key, base) is None} if path in _BY_NAME else ()
    return {key: value for key, value in (base | merged).items() if key not in removed}


def _implied_kind(path: KeyPath) -> str | None:
    """The default kind of a section without `kind`: only models have one."""
    is_model = path[-1:] in (("teacher",), ("model",)) or (len(path) == 2 and path[0] == "models")
    return "local" if is_model else None


def _error(problems: Sequence[Problem], documents: Sequence[Document], data: Any) -> ConfigError:
    """All problems as one error, ordered by file and line."""
    placed = [(problem.where or _place(problem.path, documents, data), problem) for problem in problems]
    placed.sort(key=lambda entry: entry[0])
    return ConfigError("\n".join(dict.fromkeys(problem.line(where) for where, problem in placed)))


def _place(path: KeyPath, documents: Sequence[Document], data: Any) -> Where:
    """The place of the key or, if it is missing, of its section. The last file that sets it counts."""
    there: list[str | int] = []
    for part in path:
        if not (part in data if isinstance(data, dict) else isinstance(data, list) and part in range(len(data))):
            break
        there.append(part)
        data = data[part]
    for length in range(len(there), 0, -1):
        for document in reversed(documents):
            if tuple(there[:length]) in document.places:
                return document.places[tuple(there[:length])]
    files = [place.source for document in documents for place in [document.places.get(())] if place]
    return Where(0, ", ".join(files) or "the arguments")
