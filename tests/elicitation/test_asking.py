import pytest

from aligndistill.elicitation.asking import listed, plain
from aligndistill.elicitation.texts import with_fields


@pytest.mark.parametrize(
    ("reply", "items"),
    [
        ("1. one\n2. two", ["one", "two"]),
        ("9. one\n10. two", ["one", "two"]),  # a list that continues examples
        ("Here are some prompts:\n\n1) one\n\n2) two\n", ["one", "two"]),
        ("**1.** one\n**2.** two", ["one", "two"]),
        ("1. one\nwith a second line\n2. two", ["one\nwith a second line", "two"]),
        ("1. Sort these:\n   1. pear\n   2. fig\n2. two", ["Sort these:\n   1. pear\n   2. fig", "two"]),
        ("1. one\n3. five of three", ["one\n3. five of three"]),
        ("1、第一\n2、第二", ["第一", "第二"]),
        ("- one\n- two\n* three", ["one", "two", "three"]),
        ('1. "one"\n2. Prompt: two\n3. **three**\n4. `four`', ["one", "two", "three", "four"]),
        ('1. "One" or "two"?', ['"One" or "two"?']),
        ("I cannot do that.", []),
        ("", []),
    ],
)
def test_items_of_a_reply(reply: str, items: list[str]) -> None:
    assert listed(reply) == items


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("  Prompt: Name a river \n", "Name a river"),
        ("### Rewritten prompt:\nName a river", "Name a river"),
        ("Question 3: Name a river", "Name a river"),
        ('"Name a river"', "Name a river"),
        ("Questions: which are good?", "Questions: which are good?"),
    ],
)
def test_what_models_put_around_a_prompt(text: str, said: str) -> None:
    assert plain(text) == said


def test_templates_are_filled_in_one_pass() -> None:
    assert with_fields("{a} and {b}", a="{b}", b="x") == "{b} and x"
