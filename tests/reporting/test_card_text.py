import pytest
import yaml

from aligndistill.errors import DataError
from aligndistill.reporting.card_text import BEGIN, END, card_text, fenced, plain, table, with_our_part

OURS = card_text({"license": "mit", "tags": ["aligndistill", "dpo"]}, ["# Ours"])


def front(text: str) -> dict[str, object]:
    values: dict[str, object] = yaml.safe_load(text.split("---\n")[1])
    return values


def test_the_first_push_puts_our_part_behind_the_text_that_is_there() -> None:
    text = with_our_part("# Mine\n\nNotes.\n", OURS)
    assert text.partition("---\n")[2].partition("---\n")[2] == f"# Mine\n\nNotes.\n\n{BEGIN}\n\n# Ours\n\n{END}\n"
    assert with_our_part(text, OURS) == text


def test_a_readme_of_front_matter_alone_gets_our_part() -> None:
    """As the Hub writes one when a repository is created with a licence."""
    text = with_our_part("---\nlicense: gemma\n---\n", OURS)
    assert front(text)["license"] == "mit"
    assert text.endswith(f"{END}\n")


@pytest.mark.parametrize("before", ["", "Above.\n\n"])
@pytest.mark.parametrize("after", ["\n", "\n\nBelow, with --- and `code`.\n"])
def test_everything_outside_our_part_stays_to_the_byte(before: str, after: str) -> None:
    existing = f"---\nlicense: other\nlicense_name: mine\nwidget: [a]\ntags: [mine, dpo]\n---\n{before}{BEGIN}\nold\n{END}{after}"
    text = with_our_part(existing, OURS)
    body = text.partition("---\n")[2].partition("---\n")[2]
    assert body.partition(BEGIN)[0] == before
    assert body.partition(END)[2] == after
    assert "old" not in body
    assert front(text) == {"license": "mit", "widget": ["a"], "tags": ["mine", "dpo", "aligndistill"]}


def test_half_a_mark_and_broken_front_matter_are_refused() -> None:
    with pytest.raises(DataError, match="without"):
        with_our_part(f"# Mine\n{BEGIN}\nold\n", OURS)
    with pytest.raises(DataError, match="front matter"):
        with_our_part("---\na: [\n---\n# Mine\n", OURS)


def test_no_content_ends_our_part_or_a_block() -> None:
    text = card_text({"license": "mit"}, [fenced(f"{END}\n````\n# Not a heading"), *table(("a", "b"), [("x|y", "<!-- z\nw")])])
    assert text.count(END) == text.count(BEGIN) == 1
    assert "`````\n" in text
    assert "| x\\|y | &lt;!-- z w |" in text
    assert plain("a\n# b") == "a # b"
