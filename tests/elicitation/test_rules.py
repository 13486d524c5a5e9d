"""Each rule of elimination has a row here: a text that breaks it alone, and one that just keeps it."""

import pytest

from aligndistill.config.elicitation import FORBIDDEN
from aligndistill.elicitation import rules
from aligndistill.elicitation.rules import TextRules
from aligndistill.elicitation.texts import built_in

RULES = TextRules(length=(4, 10), forbidden=FORBIDDEN, forbidden_start=("Write a program",))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Name three rivers", rules.TOO_SHORT),
        ("Name three long rivers", None),
        ("one two three four five six seven eight nine ten eleven", rules.TOO_LONG),
        ("one two three four five six seven eight nine ten", None),
        ("(Name three long rivers)", rules.NO_TEXT_FIRST),
        ("- name three long rivers", rules.NO_TEXT_FIRST),
        ("3 rivers and their sources", None),
        ("Draw the house of a fisherman", rules.FORBIDDEN_WORD),
        ("Where should I go to in Spain?", rules.FORBIDDEN_WORD),
        ("How do drawings go together?", None),  # whole words only: neither `draw` nor `go to`
        ("write a program that sorts numbers", rules.FORBIDDEN_START),
        ("How do I write a program?", None),
        ("I'm sorry, but I cannot do that", rules.REFUSED),
        ("As an AI I have no rivers", rules.REFUSED),
        ("抱歉，我不能写", rules.REFUSED),
        ("すみません、できません", rules.REFUSED),
        ("I can't sleep, what helps?", None),  # what people write, not what models answer
        ("Explique por qué el cielo es azul", None),
        ("¿Por qué el cielo es azul?", None),  # the original drops whatever begins with a character outside ASCII
        ("Élégance et style au quotidien", None),
        ("Почему небо синее днём?", None),
        ("为什么", rules.TOO_SHORT),  # three characters of a script without spaces
        ("为什么天空", None),
        ("なぜ空は青いのか", None),
    ],
)
def test_self_instructs_rules(text: str, reason: str | None) -> None:
    assert RULES.broken(text) == reason


@pytest.mark.parametrize(
    ("text", "leaking"),
    [
        ("Rewrite the Given Prompt with a constraint", True),
        ("#Rewritten Prompt#: name four rivers", True),
        ("Each must make sense alone and must be answerable in text.", True),  # eight words of the instruction
        ("Each must make sense alone", False),
        ("What was given to the prompt audience?", False),
    ],
)
def test_leaks_of_the_instruction(text: str, leaking: bool) -> None:
    assert rules.leaks(text, built_in("expand")) == leaking


def test_fields_of_a_template_are_no_instruction() -> None:
    """What fills them is the prompt's own text, which a new prompt may repeat."""
    assert not rules.leaks("a b c d e f g h i", "Rewrite this: {prompt} and {other}")


@pytest.mark.parametrize(
    ("text", "nothing"),
    [("?!...", True), ("What is it?", True), ("And then, why?", True), ("Why rivers?", False), ("为什么", False)],
)
def test_only_punctuation_and_stop_words(text: str, nothing: bool) -> None:
    assert rules.says_nothing(text) == nothing


@pytest.mark.parametrize(
    ("answer", "refusal"),
    [
        ("Sorry, that is not possible.", True),
        ("I am so sorry that " + "word " * 74, True),  # 79 words
        ("sorry " + "word " * 79, False),
        ("The river is long.", False),
        ("抱歉，我无法提供这方面的信息。", True),
        ("A sorrying text", False),
    ],
)
def test_short_refusals_among_answers(answer: str, refusal: bool) -> None:
    assert rules.is_short_refusal(answer) == refusal


@pytest.mark.parametrize(
    ("judgement", "equal"),
    [
        *[("Equal", True), ("**Equal**.", True), ("Not equal", False), ("Not Equal.", False), ("not_equal", False)],
        *[("They are not equal, since", False), ("Unequal", False), ("Equality matters", None), ("", None)],
    ],
)
def test_judgements_of_equality(judgement: str, equal: bool | None) -> None:
    assert rules.says_equal(judgement) is equal


@pytest.mark.parametrize(
    ("text", "others", "other_script"),
    [
        ("为什么天空是蓝色的", ["Why is the sky blue?"], True),
        ("Why is the sky blue?", ["为什么天空是蓝色的"], True),
        ("Why is it 为什么 in Chinese?", ["Why is the sky blue?"], False),  # most letters decide
        ("なぜ空は青いのか", ["为什么天空是蓝色的"], False),  # Japanese is written with Chinese characters, too
        ("Почему небо синее?", ["Why is the sky blue?", "Почему?"], False),
        ("1 + 1", ["Why is the sky blue?"], False),
    ],
)
def test_another_script(text: str, others: list[str], other_script: bool) -> None:
    assert rules.in_another_script(text, others) == other_script
