from pathlib import Path

import pytest

from aligndistill.errors import ConfigError
from aligndistill.judges.templates import PAIRWISE_FIELDS, RUBRIC_FIELDS, Template, load_template


@pytest.mark.parametrize("name", ["general", "helpful", "harmless"])
def test_built_in_pairwise_templates_show_everything_once_and_ask_for_a_letter(name: str) -> None:
    text = load_template(name, PAIRWISE_FIELDS).fill(
        prompt="<the prompt>", first="<one>", second="<two>", mark="5eed", verdict="A or B?"
    )
    assert [text.count(part) for part in ("<the prompt>", "<one>", "<two>")] == [1, 1, 1]
    assert text.index("<the prompt>") < text.index("<one>") < text.index("<two>")
    assert text.count("5eed") == 7
    assert text.endswith("A or B?\n")
    assert "{" not in text


def test_the_built_in_rubric_names_the_scale() -> None:
    text = load_template("rubric", RUBRIC_FIELDS).fill(prompt="p", response="r", lowest="2", highest="9", mark="m", verdict="v")
    assert "\n2 means that it fails on all of them, 9 that" in text
    assert text.endswith("\nv\n")


def test_braces_in_what_is_filled_in_stay_as_they_are() -> None:
    template = Template('{prompt}|{first}|{second}|{"winner": "A"}|{}|{ first }')
    filled = template.fill(prompt="{first}", first="{second} {prompt}", second="\\1 {unknown}")
    assert filled == '{first}|{second} {prompt}|\\1 {unknown}|{"winner": "A"}|{}|{ first }'


def test_a_template_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("{prompt} {first} {second} — {prompt}", encoding="utf-8")
    assert load_template(str(path), PAIRWISE_FIELDS).fill(prompt="p", first="1", second="2") == "p 1 2 — p"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"{prompt} {first}", r"is missing \{second\}\."),
        (b"{response}", r"is missing \{first\}, \{prompt\}, \{second\} and has unknown fields \{response\}\."),
        (b"{prompt} {first} {second} {frist}", r"has unknown fields \{frist\}\."),
        (b"\xff\xfe", r"cannot read the judge template .*utf-8"),
        (None, r"No such file.*general, harmless, helpful, listwise, rubric"),
    ],
)
def test_a_template_that_cannot_be_used(content: bytes | None, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=expected) as caught:
        load_template(str(path), PAIRWISE_FIELDS)
    assert "mine.txt" in str(caught.value)


def test_a_built_in_template_of_the_other_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'rubric' is missing \{first\}, \{second\}"):
        load_template("rubric", PAIRWISE_FIELDS)
