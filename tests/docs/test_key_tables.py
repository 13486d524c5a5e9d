"""The tables for users of other tools name keys that exist: ours by the schema, TRL's by its source."""

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from aligndistill.config.run import RunConfig
from aligndistill.config.schema import fields_of
from aligndistill.data.sources import COLUMNS
from tests.docs.blocks import ROOT
from website.reference import places_of

PAGES = [ROOT / f"docs/howto/from-{name}.md" for name in ("trl", "openrlhf", "llama-factory")]
NOT_KEYS = {
    *("NAME", "name", "module", "role", "content", "human", "user", "gpt", "assistant", "input", "instruction", "all-linear"),
    *("lmbda", "seq_kd", "simpo_gamma", "pref_beta", "w"),  # theirs, in a formula for ours
}
"""Words in code that stand for values."""


def cells(page: Path, column: int) -> Iterator[str]:
    """A column of every key table of a page, header rows left out."""
    for line in page.read_text().splitlines():
        parts = re.split(r"(?<!\\) ?\| ?", line)[1:-1]
        if line.startswith("| ") and "---" not in line and parts[1] != "here":
            yield parts[column]


def words(cell: str) -> set[str]:
    """The names in the code of a cell."""
    return {word for span in re.findall(r"`([^`]+)`", cell) for word in re.findall(r"[A-Za-z](?:[\w-]*\w)?", span)}


def literals(annotation: Any) -> Iterator[str]:
    """Every text that a type lists."""
    for one in get_args(annotation):
        yield from [one] if isinstance(one, str) else literals(one)


@pytest.fixture(scope="module")
def ours() -> set[str]:
    sections = places_of(RunConfig)
    keys = {key for section in sections for key in fields_of(section)}
    values = {text for section in sections for annotation in fields_of(section).values() for text in literals(annotation)}
    return keys | values | set(COLUMNS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_our_side_names_keys_and_values_of_the_schema(page: Path, ours: set[str]) -> None:
    named = set().union(*(words(cell) for cell in cells(page, 1)))
    assert len(named) > 40
    assert sorted(named - ours - NOT_KEYS) == []


def test_trls_side_names_what_is_in_trl() -> None:
    folders = [Path(str(importlib.util.find_spec(name).origin)).parent for name in ("trl", "transformers")]  # type: ignore[union-attr]
    files = [*folders[0].glob("trainer/*.py"), *folders[0].glob("experimental/*/*_config.py"), folders[0] / "scripts/utils.py"]
    text = "\n".join(path.read_text() for path in [*files, folders[1] / "training_args.py"])
    known = set(re.findall(r"\w+", text))
    assert "learning_rate" in known
    named = set().union(*(words(cell) for cell in cells(PAGES[0], 0)))
    assert sorted(named - known - {"experimental", "cpo", "orpo", "gkd", "w"}) == []
