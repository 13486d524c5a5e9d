"""Domains: built-in folders, and the user's own."""

import json
from pathlib import Path

import pytest

from aligndistill.config.data import Source
from aligndistill.config.judges import DOMAINS, TEMPLATES
from aligndistill.data.loading import load_demonstrations
from aligndistill.errors import ConfigError
from aligndistill.judges.domains import EXAMPLES, INSTRUCTION, PRINCIPLES, RUBRIC, criteria, domain_file, lines_of, text_of
from aligndistill.judges.templates import LISTWISE_FIELDS, PAIRWISE_FIELDS, RUBRIC_FIELDS, load_template

DEFAULTS = [("general", PAIRWISE_FIELDS), ("listwise", LISTWISE_FIELDS), ("rubric", RUBRIC_FIELDS)]


def test_all_that_are_built_in_are_listed() -> None:
    """Those that are not would be read from the working directory, and hashed."""
    folder = domain_file("general", RUBRIC).parent.parent
    assert {path.name for path in folder.iterdir() if path.is_dir()} == set(DOMAINS)
    assert {path.stem for path in folder.parent.glob("*.txt")} == set(TEMPLATES)


@pytest.mark.parametrize("domain", DOMAINS)
def test_each_has_criteria_principles_an_instruction_and_examples(domain: str) -> None:
    assert len(lines_of(domain_file(domain, RUBRIC), "criteria")) >= 4
    assert len(lines_of(domain_file(domain, PRINCIPLES), "principles")) >= 5
    assert len(text_of(domain_file(domain, INSTRUCTION), "instruction").split()) >= 10
    examples = list(load_demonstrations(Source(path=str(domain_file(domain, EXAMPLES))), held_out=0.0))
    assert len({one.prompt_id for one in examples}) >= 3


def test_no_two_have_the_same_texts() -> None:
    for name in (RUBRIC, PRINCIPLES, INSTRUCTION, EXAMPLES):
        assert len({domain_file(domain, name).read_text() for domain in DOMAINS}) == len(DOMAINS)


@pytest.mark.parametrize(("name", "fields"), DEFAULTS)
def test_a_judges_template_asks_by_the_domains_criteria(name: str, fields: frozenset[str]) -> None:
    values = dict.fromkeys(fields, "x") | {"mark": "m", "verdict": "v"}
    finance, without = load_template(name, fields, "finance").fill(**values), load_template(name, fields).fill(**values)
    assert criteria("finance") in finance
    assert criteria("finance") not in without
    assert "{" not in finance


def test_a_folder_of_the_users_may_hold_only_what_is_used(tmp_path: Path) -> None:
    (tmp_path / RUBRIC).write_text("# mine\nIt is {kind}.\n\nIt is short.\n")
    assert criteria(str(tmp_path)) == "- It is {kind}.\n- It is short."
    text = load_template("rubric", RUBRIC_FIELDS, str(tmp_path)).fill(
        prompt="p", response="r", lowest="1", highest="9", mark="m", verdict="v"
    )
    assert "- It is {kind}." in text, "braces in criteria are text"
    with pytest.raises(ConfigError, match=r"has no file principles.txt: add it"):
        domain_file(str(tmp_path), PRINCIPLES)


def test_unknown_domains_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"no domain 'finances': give the path of a folder, or one of code, finance, general, law"
    ):
        domain_file("finances", RUBRIC)
    (tmp_path / "empty.txt").write_text("\n# nothing\n")
    with pytest.raises(ConfigError, match="has no principles: write one per line"):
        lines_of(tmp_path / "empty.txt", "principles")
    with pytest.raises(ConfigError, match="cannot read the principles in"):
        lines_of(tmp_path / "none.txt", "principles")
    (tmp_path / "blank.txt").write_text(" \n")
    with pytest.raises(ConfigError, match="has no instruction: it is empty"):
        text_of(tmp_path / "blank.txt", "instruction")


def test_a_template_of_the_users_has_a_place_for_the_criteria(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("{prompt} {first} {second}\n{criteria}")
    assert criteria("law") in load_template(str(path), PAIRWISE_FIELDS, "law").fill(prompt="p", first="a", second="b")
    with pytest.raises(ConfigError, match=r"has unknown fields \{criteria\}"):
        load_template(str(path), PAIRWISE_FIELDS)
    path.write_text("{prompt} {first} {second}")
    with pytest.raises(ConfigError, match=r"is missing \{criteria\}"):
        load_template(str(path), PAIRWISE_FIELDS, "law")


def test_a_template_with_its_own_criteria_has_no_domain() -> None:
    with pytest.raises(ConfigError, match="'harmless' has its own criteria: remove 'template' or 'domain'"):
        load_template("harmless", PAIRWISE_FIELDS, "law")


def test_the_domains_are_files_of_the_package() -> None:
    """Wheels hold every file under aligndistill/ (`[tool.hatch.build.targets.wheel]`), so rows must be whole there."""
    for domain in DOMAINS:
        for line in domain_file(domain, EXAMPLES).read_text().splitlines():
            assert json.loads(line).keys() == {"prompt", "completion"}
