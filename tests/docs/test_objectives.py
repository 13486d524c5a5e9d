"""The page of each objective says what the schema does: its defaults, its learning rate, and the config that its overlay is."""

import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from aligndistill.config.objectives import Objective
from tests.docs.blocks import ROOT, blocks

FOLDER = ROOT / "docs/objectives"
INDEX = (ROOT / "docs/objectives.md").read_text()


def leaves(annotation: Any) -> list[Any]:
    """The classes of nested unions."""
    inner = get_args(annotation)
    return [one for part in inner for one in leaves(part)] if inner else [annotation]


SECTIONS = {
    get_args(section.model_fields["kind"].annotation)[0]: section
    for section in leaves(Objective)
    if hasattr(section, "model_fields")
}
kinds = pytest.mark.parametrize("kind", sorted(SECTIONS))


def test_every_objective_has_a_page_in_the_index() -> None:
    assert {path.stem for path in FOLDER.glob("*.md")} == {*SECTIONS, "reward_model"}
    assert sorted(re.findall(r"\]\(objectives/(\w+)\.md\)", INDEX)) == sorted([*SECTIONS, "reward_model"])


@pytest.mark.parametrize("page", sorted(FOLDER.glob("*.md")), ids=lambda page: page.stem)
def test_every_page_has_the_same_parts(page: Path) -> None:
    assert {"When to use it", "Loss", "Defaults", "Measured"} <= set(re.findall(r"^## (.+)$", page.read_text(), flags=re.MULTILINE))


@kinds
def test_defaults_are_those_of_the_schema(kind: str) -> None:
    shown = dict(
        re.findall(r"^\| `(\w+)` \| (\S+) \| .+ \|$", (FOLDER / f"{kind}.md").read_text().partition("## Defaults")[2], re.M)
    )
    section = SECTIONS[kind]
    defaults = {name: field.default for name, field in section.model_fields.items() if name != "kind"}
    assert {name: float(text) if name == "learning_rate" else yaml.safe_load(text) for name, text in shown.items()} == {
        "learning_rate": section.default_learning_rate,
        **defaults,
    }


@kinds
def test_the_config_is_that_of_the_overlay(kind: str) -> None:
    shown = next(block for block in blocks(FOLDER / f"{kind}.md") if block.language == "yaml")
    assert yaml.safe_load(shown.text) == yaml.safe_load((ROOT / f"configs/objectives/{kind}.yaml").read_text())
