import math
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aligndistill.judges.parsing import parse_grade, parse_preference

READ_AS_FIRST = [
    "A",
    " a\n",
    "**A**",
    "(A)",
    '"A".',
    "Answer A",
    "[[A]]",
    "My final verdict is: [[A]]",
    "[[ A ]] and again [[A]]",
    "[[A>>B]]",
    "[[A > B]]",
    "[[B<A]]",
    "Format: [[verdict]]. [[A]]",
    '{"winner": "A"}',
    '{"winner": "a", "winner": "a"}',
    '```json\n{"reason": "it says {this}", "winner": "A"}\n```',
    'I looked at both. {"winner": "A"} That is all.',
    '{"winner": "B"}\nOn reflection:\n{"winner": "A"}',
    '{"winner": "A"}\n{"confidence": 0.9}',
    '{broken {"winner": "A"}',
    "<think>B looks better. [[B]]</think>A",
    "B is what I thought</think>\n\nA",
    '<THINK>\nB\n</THINK>\n{"winner": "A"}',
    "A\n\nIt is kinder and says why.",
    "It is kinder and says why.\n\nA",
    "Answer: A",
    "**Answer:** A",
    "Answer: **A**.",
    "Verdict: A",
    "The better answer is A.",
    "The better response is response A.",
    "The better answer is: A",
    "The better answer is A because it is kind.",
    "The better one is A (it is kinder).",
    "A is better.",
    "A is better than B.",
    "A is clearly the better answer.",
    "Answer A is slightly better than answer B.",
    "Response A wins.",
    "I prefer A.",
    "I think A is better.",
    "Answer B does not say why. The better answer is A.",
]

READ_AS_TIE = ["tie", "Tie.", "[[C]]", "[[tie]]", "[[A=B]]", '{"winner": "tie"}', "Answer: tie", "It is a tie.", "Verdict: a tie"]

NOT_READ = [
    "",
    "   \n",
    "C",
    "AB",
    "A or B",
    "A, B",
    "A/B",
    "Answer: A or B?",
    "Answer: A, B",
    "Answer: A. Answer: B.",
    "A\nB",
    "A\n\nB is better.",
    "[[A]] [[B]]",
    "[[D]]",
    '{"winner": "both"}',
    '{"winner": null}',
    '{"winner": ["A"]}',
    '{"winner": "A", "winner": "B"}',
    '{"winner": "A"',
    '{"result": {"winner": "A"}}',
    '[[A]] {"winner": "unclear"}',
    "<think>A is better",
    "<think>A</think>",
    "Is A better?",
    "A is not better.",
    "A is better than B? No.",
    "If A is better, it is hard to see.",
    "I do not think the better answer is A.",
    "I don't think A is better.",
    "The better answer is A, but B is kinder.",
    "Some say A is better.",
    "Neither A nor B.",
    "Both answers are bad. A is better if brevity counts.",
    "A better answer would say why.",
    "The better answer is a good one.",
    "The correct answer is A.",
    "The answer depends.",
    "R&A is better",
    "I cannot help with that.",
    "{" * 50_000,
    '{"a":' * 20_000,
    '{"winner":' * 20_000,
    "[" * 50_000,
    "<think>" * 20_000,
    "answer:" + " " * 50_000 + "x",
]


def swapped(text: str) -> str:
    """The same words about the same answers shown in the other order."""
    return re.sub(r"\b[AB]\b", lambda match: "BA"["AB".index(match[0])], text)


@pytest.mark.parametrize("reply", READ_AS_FIRST)
def test_first_is_read(reply: str) -> None:
    assert parse_preference(reply) == "first"


@pytest.mark.parametrize("reply", [swapped(reply.replace(" a\n", " A\n").replace('"a"', '"A"')) for reply in READ_AS_FIRST])
def test_the_same_words_about_the_second_are_read_as_second(reply: str) -> None:
    assert parse_preference(reply) == "second"


@pytest.mark.parametrize("reply", READ_AS_TIE)
def test_tie_is_read(reply: str) -> None:
    assert parse_preference(reply) == "tie"


@pytest.mark.parametrize("reply", NOT_READ, ids=lambda reply: reply[:30])
@pytest.mark.timeout(5)
def test_what_is_not_one_clear_verdict_is_unparsed(reply: str) -> None:
    assert parse_preference(reply) == "unparsed"
    assert parse_preference(swapped(reply)) == "unparsed"


PIECES = st.sampled_from(
    [*"AB{}[]:,.?\n ", "[[", "]]", '{"winner": ', '"A"', '"B"', '"tie"', "}", "Answer: ", " is better", "not ", "tie", "<think>",
     "</think>", "I prefer ", "\n\n", "[[A]]", "[[B]]", "8/10", '{"score": ', "7", "Score: ", "-", "1e9", "NaN", "Infinity"]
)  # fmt: skip
REPLIES = st.text() | st.lists(PIECES, max_size=12).map("".join)


@given(REPLIES)
@example('{"winner": ' + "9" * 5000 + "}")
def test_any_reply_gets_an_outcome_and_the_letters_are_treated_alike(reply: str) -> None:
    outcome = parse_preference(reply)
    assert outcome in ("first", "second", "tie", "unparsed")
    opposite = {"first": "second", "second": "first"}.get(outcome, outcome)
    if not re.search(r"\b[ab]\b", reply):
        assert parse_preference(swapped(reply)) == opposite


@given(REPLIES, st.sampled_from(["first", "second"]))
def test_nothing_before_the_last_json_object_changes_it(before: str, outcome: str) -> None:
    letter = {"first": "A", "second": "B"}[outcome]
    reply = before.replace("<", "").replace("{", "") + '\n{"winner": "' + letter + '"}'
    assert parse_preference(reply) == outcome


@pytest.mark.parametrize(
    ("reply", "grade"),
    [
        ("7", 7.0),
        (" 7.\n", 7.0),
        ("**7**", 7.0),
        ("7.5", 7.5),
        ("10", 10.0),
        ("[[7]]", 7.0),
        ("Rating: [[7]]", 7.0),
        ("The format is [[rating]]: [[7]]", 7.0),
        ("8/10", 8.0),
        ("I give it 8 / 10.", 8.0),
        ("8 out of 10", 8.0),
        ("Score: 8/10", 8.0),
        ("2/3 of it is right. Score: 6", 6.0),
        ("Score: 7", 7.0),
        ("The score is 7.", 7.0),
        ("**Score:** 7", 7.0),
        ("I give it a grade of 7.", 7.0),
        ('{"score": 7}', 7.0),
        ('{"score": "7"}', 7.0),
        ('```json\n{"score": 7.5, "why": "kind"}\n```', 7.5),
        ('{"score": 2} no: {"score": 7}', 7.0),
        ("<think>3/10? Score: 2</think>7", 7.0),
        ("7\n\nIt has 3 sentences.", 7.0),
        ("It has 3 sentences.\n7", 7.0),
        ("Score: 2*3", None),
        ("Score: 2 x 3", None),
        *((reply, None) for reply in NOT_READ),
        *(
            (reply, None)
            for reply in (
                "0", "11", "-3", ".5", "<7", "7,5", "1e1", "70%", "7-8", "Score: 7-8", "Score: 7 to 8", "Score: 7,5", "4/5",
                "Score: 4/5", "Score: 11", "[[11]]", "[[7]] [[8]]", "7\n8", "Score: 7. Score: 8.", '{"score": 11}',
                '{"score": true}', '{"score": NaN}', '{"score": null}', '{"score": "seven"}', '{"score": 7, "score": 8}', "NaN",
                "Infinity", "9" * 400, '{"score": ' + "9" * 400 + "}", '{"score": ' + "9" * 5000 + "}", "It has 3 sentences.",
            )
        ),
    ],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
@pytest.mark.timeout(5)
def test_grades(reply: str, grade: float | None) -> None:
    assert parse_grade(reply, 1, 10) == grade


def test_a_scale_below_zero() -> None:
    assert parse_grade("-3", -5, 5) == -3.0
    assert parse_grade("Score: -3", -5, 5) == -3.0


@given(REPLIES, st.integers(-3, 3), st.integers(4, 20))
def test_any_reply_gets_a_grade_on_the_scale_or_none(reply: str, lowest: int, highest: int) -> None:
    grade = parse_grade(reply, lowest, highest)
    assert grade is None or (math.isfinite(grade) and lowest <= grade <= highest)


@given(st.integers(1, 10))
def test_a_grade_that_is_written_is_read(grade: int) -> None:
    for form in ("{}", "Score: {}", "[[{}]]", "{}/10", '{{"score": {}}}'):
        assert parse_grade(form.format(grade), 1, 10) == grade
