"""Reads and writes YAML: the core types of YAML 1.2 and the line of every key, without running code or exhausting memory.

Plain PyYAML reads `1e-6` as text, `no` as false and `2026-10-01` as a date, and silently uses the last of two equal keys.
"""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from aligndistill.config.problems import Problem, Where, did_you_mean
from aligndistill.config.schema import KeyPath

MAX_DEPTH = 20
MAX_NODES = 10_000
"""Counted after aliases are expanded, so that a few lines cannot expand to billions of values."""

_SCALARS = {
    "null": (r"~|null|Null|NULL|", "~nN"),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?[0-9]{1,100}|0o[0-7]{1,100}|0x[0-9a-fA-F]{1,100}", "-+0123456789"),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
}
"""YAML 1.2.2, section 10.3.2: the regular expression and the first characters of each type; everything else is text."""

_TAG = "tag:yaml.org,2002:"


@dataclass
class Document:
    """A parsed document: plain data (None if unusable), the place of every key, and the problems found."""

    data: Any
    places: dict[KeyPath, Where] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


class _Loader(yaml.SafeLoader):
    """Resolves the core types of YAML 1.2 and limits the depth. Only its composer is used, so no objects are constructed."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (the stubs do not know it as a class variable)
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=f"more than {MAX_DEPTH} levels", problem_mark=self.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Dumper(yaml.SafeDumper):
    """Quotes text that a YAML 1.1 or 1.2 parser would read as another type."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        """In double quotes if a character is not printable: PyYAML's other styles lose some of these."""
        return self.represent_scalar(_TAG + "str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _Dumper.represent_text)

for _name, (_pattern, _first) in _SCALARS.items():
    _characters = [*_first, ""] if _name == "null" else list(_first)
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern})\Z"), _characters)


def dump_yaml(data: Any) -> str:
    """Plain data as YAML, in its own order."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=120)


def read_yaml_file(path: Path, index: int) -> Document:
    """Read a file that contains one mapping. `index` is its position among the files given."""
    where = Where(index, str(path))
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        near = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        advice = did_you_mean(path.name, near) if near else f"; there is no folder '{path.parent}'"
        return Document(None, problems=[Problem((), f"there is no such file{advice}", where)])
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        return Document(None, problems=[Problem((), "not UTF-8 text; save the file as UTF-8", replace(where, line=line))])
    except OSError as error:
        return Document(None, problems=[Problem((), f"cannot be read: {error.strerror}", where)])
    document = read_yaml(text, replace(where, line=1))
    if document.problems and document.data is None:
        return document
    if document.data is None:
        return Document(None, problems=[Problem((), "the file is empty; expected 'key: value' lines", where)])
    if not isinstance(document.data, dict):
        return Document(None, problems=[Problem((), "expected 'key: value' lines at the top level", where)])
    return document


def read_yaml(text: str, where: Where, path: KeyPath = ()) -> Document:
    """Parse a text located at `where` (line 0: not in a file) whose value belongs to the key `path`."""
    document = Document(None)
    try:
        node = _compose(text)
        if node is not None:
            document.data = _Builder(where, document).build(node, path)
    except yaml.YAMLError as error:
        return Document(None, problems=[_syntax_problem(error, text, where, path)])
    return document


def _compose(text: str) -> yaml.Node | None:
    loader = _Loader(text)
    try:
        node: yaml.Node | None = loader.get_single_node()
        return node
    finally:
        loader.dispose()


@dataclass
class _Builder:
    """Converts YAML nodes to plain data and records the place of each key."""

    where: Where
    document: Document
    nodes: int = 0

    def build(self, node: yaml.Node, path: KeyPath) -> Any:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise yaml.MarkedYAMLError(problem=f"more than {MAX_NODES} values", problem_mark=node.start_mark)
        if len(path) > 2 * MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem="an alias refers to a value that contains it", problem_mark=node.start_mark)
        self.document.places.setdefault(path, self._place(node))
        if isinstance(node, yaml.MappingNode):
            self._expect_tag(node, "map", path)
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            self._expect_tag(node, "seq", path)
            return [self.build(item, (*path, number)) for number, item in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key, place = key_node.value, self._place(key_node)
            if key_node.tag != _TAG + "str":
                self._report(path, "a key must be text: put it in quotes", key_node)
                if not isinstance(key, str):
                    continue
            if key == "<<":
                self._report(path, "merge keys (<<) are not supported: repeat the keys, or give several files", key_node)
                continue
            if key in data:
                first = self.document.places[(*path, key)]
                self._report((*path, key), f"duplicate key; first given at {first}", key_node)
            self.document.places[(*path, key)] = place
            data[key] = self.build(value_node, (*path, key))
        return data

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath) -> Any:
        kind, value = node.tag.removeprefix(_TAG), node.value
        if kind == "str" or kind not in _SCALARS or not re.fullmatch(_SCALARS[kind][0], value):
            self._expect_tag(node, "str", path)
            return self._text(node, path)
        if kind == "null":
            return None
        if kind == "bool":
            return value.lower() == "true"
        if kind == "int":
            return int(value, {"0o": 8, "0x": 16}.get(value[:2], 10))
        return float(re.sub(r"^([-+]?)\.(?=[a-zA-Z])", r"\1", value))  # `.inf` and `.nan` are Python's inf and nan

    def _text(self, node: yaml.ScalarNode, path: KeyPath) -> str:
        text: str = node.value
        if any("\ud800" <= character <= "\udfff" for character in text):
            self._report(path, "invalid Unicode (lone surrogate)", node)
            return "?"
        return text

    def _expect_tag(self, node: yaml.Node, kind: str, path: KeyPath) -> None:
        if node.tag != _TAG + kind:
            self._report(path, "tags (such as !name) are not supported: use plain values", node)

    def _place(self, node: yaml.Node) -> Where:
        return replace(self.where, line=self.where.line + node.start_mark.line) if self.where.line else self.where

    def _report(self, path: KeyPath, text: str, node: yaml.Node) -> None:
        self.document.problems.append(Problem(path, text, self._place(node)))


def _syntax_problem(error: yaml.YAMLError, text: str, where: Where, path: KeyPath) -> Problem:
    """PyYAML's error with its line, without the quoted source (which may contain a secret)."""
    number, message = 0, "not valid YAML"
    if isinstance(error, yaml.reader.ReaderError):
        number, message = text[: error.position].count("\n"), f"the character #x{ord(text[error.position]):02x} is not allowed"
    elif isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        number = mark.line if mark else 0
        message = f"not valid YAML: {', '.join(part for part in (error.context, error.problem) if part)}"
        lines = text.splitlines()
        if number < len(lines) and re.match(r" *\t", lines[number]):
            message = "a tab at the beginning of the line: indent with spaces"
    if not where.line:
        return Problem(path, f"{message} (put text with special characters in quotes)", where)
    return Problem(path, message, replace(where, line=where.line + number))
