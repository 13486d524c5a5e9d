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
        ("**1. one**\n\n**2. two: a**b\n", ["one", "**two: a**b"]),  # the mark before a number belongs to the text
        ("__1. one__\n2.**two**", ["one", "two"]),
        ("1. What is 2**3?\n2. two", ["What is 2**3?", "two"]),
        ("1. one\n\n---\n\n2. two\n\n***\n", ["one", "two"]),
        ("1. Shorten:\n---\nlong\n---\n2. two", ["Shorten:\n---\nlong\n---", "two"]),
        ("1. Fill in:\n____\n2. two", ["Fill in:\n____", "two"]),
        ("### 1. one\n- a\n- b\n\n### 2. two\n- c", ["one\n- a\n- b", "two\n- c"]),
        ("## 1. one\n1. a\n2. b\n## 2. two", ["one\n1. a\n2. b", "two"]),  # the list is below a heading
        ("### **1. one**\n### **2. two**", ["one", "two"]),
        ("1. Plan a trip:\n   - a\n   - b\n2. two", ["Plan a trip:\n   - a\n   - b", "two"]),
        ("I cannot do that.", []),
        ("", []),
    ],
)
def test_items_of_a_reply(reply: str, items: list[str]) -> None:
    assert listed(reply) == items


@pytest.mark.parametrize(
    ("reply", "items"),
    [
        ("1. one\n2. two\n\nLet me know if you need more!", ["one", "two"]),
        ("1. one\n\n---\n\n2. two\n\n---\n\nEnjoy!", ["one", "two"]),
        ("1. one\n2. two:\n   - a\n\n   - b\n\n**Note:** all are new.", ["one", "two:\n   - a\n\n   - b"]),
        ("1. one\n2. Repair this:\n\nx = 1\n\nEnjoy!", ["one", "Repair this:\n\nx = 1"]),
        ("1. one\n2. Repair this.\n```\nx = 1\n\ny = 2\n```\n\nEnjoy!", ["one", "Repair this.\n```\nx = 1\n\ny = 2\n```"]),
        ("1. one\n2. Choose one.\n\n- a\n- b", ["one", "Choose one.\n\n- a\n- b"]),
        ("1. one\n\nText: a\n\n2. two\n\nText: b", ["one\n\nText: a", "two\n\nText: b"]),
        ("1. one\n\nText: a", ["one\n\nText: a"]),  # whether that is the prompt's cannot be told
    ],
)
def test_a_remark_behind_a_list_is_no_part_of_the_last_item(reply: str, items: list[str]) -> None:
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
