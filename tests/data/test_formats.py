"""Rows to prompts, demonstrations and judged answers, each worked out by hand."""

from typing import Any

import pytest

from aligndistill.data.files import BadRow, SourceRow
from aligndistill.data.formats import Format, ScoredRow, format_of, read_demonstration, read_judged, read_prompt
from aligndistill.data.pairs import pair_of
from aligndistill.errors import DataError

Turns = list[tuple[str, str]]


def messages(*turns: tuple[str, str]) -> list[dict[str, str]]:
    names = {"s": "system", "u": "user", "a": "assistant"}
    return [{"role": names[role], "content": content} for role, content in turns]


def turns_of(prompt: tuple[Any, ...]) -> Turns:
    return [(message.role[0], message.content) for message in prompt]


def pair(values: dict[str, Any]) -> tuple[Turns, str, str]:
    read = pair_of(values)
    return turns_of(read.prompt), read.chosen, read.rejected


# ---------------------------------------------------------------------------------------------------------------- pairs

HH = "\n\nHuman: Hi \n\nAssistant: Hello.\n\nHow are you?\n\nHuman: Fine: and you?\n\nAssistant:"
HH_TURNS = [("u", "Hi"), ("a", "Hello.\n\nHow are you?"), ("u", "Fine: and you?")]
U, A, B = ("u", "Question?"), ("a", "good"), ("a", "bad")


@pytest.mark.parametrize(
    ("values", "prompt", "chosen", "rejected"),
    [
        pytest.param({"prompt": "Question?", "chosen": "good", "rejected": "bad"}, [U], "good", "bad", id="explicit, text"),
        pytest.param(
            {"prompt": messages(("s", "Be brief."), U), "chosen": messages(A), "rejected": messages(B)},
            [("s", "Be brief."), U],
            "good",
            "bad",
            id="explicit, messages",
        ),
        pytest.param(
            {"prompt": "Question?", "chosen": messages(A), "rejected": messages(B)}, [U], "good", "bad", id="explicit, mixed"
        ),
        pytest.param({"chosen": messages(U, A), "rejected": messages(U, B)}, [U], "good", "bad", id="implicit, messages"),
        pytest.param(
            {"chosen": messages(("s", "S"), U, A, ("u", "more"), A), "rejected": messages(("s", "S"), U, A, ("u", "more"), B)},
            [("s", "S"), U, A, ("u", "more")],
            "good",
            "bad",
            id="implicit, several turns",
        ),
        pytest.param(
            {"prompt": "Question?", "chosen": messages(U, A), "rejected": messages(U, B)}, [U], "good", "bad", id="handbook"
        ),
        pytest.param(
            {"prompt": messages(U), "chosen": messages(("s", "S"), U, A), "rejected": messages(("s", "S"), U, B)},
            [("s", "S"), U],
            "good",
            "bad",
            id="handbook, with a system message",
        ),
        pytest.param({"prompt": None, "chosen": messages(U, A), "rejected": messages(U, B)}, [U], "good", "bad", id="null prompt"),
        pytest.param({"chosen": HH + " good ", "rejected": HH + " bad"}, HH_TURNS, "good", "bad", id="HH"),
        pytest.param(
            {"chosen": (HH + " good").strip(), "rejected": (HH + " bad").replace("\n", "\r\n")},
            HH_TURNS,
            "good",
            "bad",
            id="HH, stripped and CRLF",
        ),
        pytest.param({"chosen": HH, "rejected": HH + " bad"}, HH_TURNS, "", "bad", id="HH with an empty answer"),
        pytest.param({"prompt": HH, "chosen": " good", "rejected": " bad"}, HH_TURNS, "good", "bad", id="HH prompt, answers apart"),
        pytest.param(
            {"prompt": HH, "chosen": HH + " good", "rejected": HH + " bad"}, HH_TURNS, "good", "bad", id="HH prompt twice"
        ),
    ],
)
def test_pairs(values: dict[str, Any], prompt: Turns, chosen: str, rejected: str) -> None:
    assert pair(values) == (prompt, chosen, rejected)


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt", "left", "right"),
    [
        ("The sky is blue.", "The sky is green.", "The sky is", " blue.", " green."),  # TRL's own example
        ("The sky is black.", "The sky is blue.", "The sky is", " black.", " blue."),  # TRL would split after `bl`
        ("Say it.\n\nYes", "Say it.\n\nNo", "Say it.\n\n", "Yes", "No"),
        ("Q? Yes", "Q?\nNo", "Q?", " Yes", "\nNo"),
        ("Go on", "Go on and on", "Go", " on", " on and on"),
    ],
)
def test_text_with_a_common_beginning(chosen: str, rejected: str, prompt: str, left: str, right: str) -> None:
    assert pair({"chosen": chosen, "rejected": rejected}) == ([("u", prompt)], left, right)
    assert pair({"chosen": rejected, "rejected": chosen}) == ([("u", prompt)], right, left)


def test_the_split_of_conversations_is_that_of_trl() -> None:
    from trl import extract_prompt

    values = {"chosen": messages(U, A, ("u", "x"), A), "rejected": messages(U, A, ("u", "x"), B)}
    theirs, ours = extract_prompt(values), pair_of(values)
    assert [message.model_dump() for message in ours.prompt] == theirs["prompt"]
    assert [[ours.chosen], [ours.rejected]] == [[turn["content"] for turn in theirs[side]] for side in ("chosen", "rejected")]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"chosen": "yes", "rejected": "no"}, "no common prefix"),
        ({"chosen": " yes", "rejected": " no"}, "no common prefix"),
        ({"chosen": "\nyes", "rejected": "\nno"}, "no common prefix"),
        ({"chosen": "same words", "rejected": "same words"}, "chosen equals rejected"),
        ({"chosen": messages(A), "rejected": messages(B)}, "no common prefix"),
        ({"chosen": messages(U, A), "rejected": messages(("u", "other"), B)}, "no common prefix"),
        ({"chosen": messages(U, A, U, A), "rejected": messages(U, B, U, A)}, "prompts differ"),
        ({"chosen": messages(U, A), "rejected": messages(U, B, U, A)}, "prompts differ"),
        ({"chosen": messages(U, A, U), "rejected": messages(U, A, ("u", "x"))}, "no assistant turn at the end"),
        ({"chosen": messages(U, U, A), "rejected": messages(U, U, B)}, "roles out of order"),
        ({"chosen": messages(("s", "S"), A), "rejected": messages(("s", "S"), B)}, "empty prompt"),
        ({"chosen": messages(U, A, A), "rejected": messages(U, A, B)}, "prompt does not end with a user turn"),
        ({"chosen": "text", "rejected": messages(U, A)}, "chosen and rejected differ in form"),
        ({"prompt": "other", "chosen": messages(U, A), "rejected": messages(U, B)}, "prompts differ"),
        ({"prompt": "p", "chosen": messages(A, U, A), "rejected": messages(B)}, "chosen is not one assistant turn"),
        ({"prompt": None, "chosen": "good", "rejected": "bad"}, "missing prompt"),
        ({"prompt": 7, "chosen": "good", "rejected": "bad"}, "prompt is not text"),
        ({"prompt": "p", "chosen": 7, "rejected": "bad"}, "chosen is not text"),
        ({"prompt": "p", "chosen": ["good"], "rejected": ["bad"]}, "chosen is not a list of messages"),
        ({"prompt": "p", "chosen": [], "rejected": ["bad"]}, "empty chosen"),
    ],
)
def test_rows_that_are_no_pairs(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRow) as caught:
        pair_of(values)
    assert caught.value.reason == reason


# -------------------------------------------------------------------------------------------------------------- prompts


@pytest.mark.parametrize(
    ("values", "row_format", "turns"),
    [
        ({"prompt": "p"}, "prompts", [("u", "p")]),
        ({"prompt": messages(("s", ""), U)}, "prompts", [("s", ""), U]),
        ({"prompt": "p", "completion": "c"}, "prompts", [("u", "p")]),
        ({"messages": messages(U, A)}, "prompts", [U]),
        ({"messages": messages(U, A, ("u", "x"))}, "prompts", [U, A, ("u", "x")]),
        ({"prompt": "p", "messages": messages(U, A)}, "prompts", [("u", "p")]),
        ({"prompt": HH}, "prompts", HH_TURNS),
        ({"prompt": "Human: is a noun?"}, "prompts", [("u", "Human: is a noun?")]),
        ({"prompt": "p", "responses": None}, "rankings", [("u", "p")]),
        ({"prompt": "p", "chosen": "same", "rejected": "same"}, "preference", [("u", "p")]),
        ({"chosen": HH, "rejected": HH}, "hh", HH_TURNS),
    ],
)
def test_prompts(values: dict[str, Any], row_format: Format, turns: Turns) -> None:
    assert turns_of(read_prompt(values, row_format)) == turns


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"other": 1}, "missing messages"),
        ({"prompt": None}, "missing prompt"),
        ({"prompt": ""}, "empty prompt"),
        ({"prompt": " \n"}, "empty prompt"),
        ({"prompt": 3.5}, "prompt is not text"),
        ({"prompt": {"text": "p"}}, "prompt is not text"),
        ({"prompt": []}, "empty prompt"),
        ({"prompt": ["p"]}, "prompt is not a list of messages"),
        ({"prompt": messages(U, A)}, "prompt does not end with a user turn"),
        ({"prompt": messages(A, U)}, "roles out of order"),
        ({"prompt": messages(U, U)}, "roles out of order"),
        ({"prompt": messages(U, ("s", "S"), U)}, "roles out of order"),
        ({"prompt": messages(("s", "S"))}, "empty prompt"),
        ({"prompt": messages(U, ("a", " "), U)}, "empty prompt"),
        ({"prompt": [{"role": "tool", "content": "x"}]}, "unknown role"),
        ({"prompt": [{"role": ["user"], "content": "x"}]}, "unknown role"),
        ({"prompt": [{"role": "user"}]}, "missing content of a message"),
        ({"prompt": [{"role": "user", "content": [{"type": "text"}]}]}, "content of a message is not text"),
        ({"messages": "text"}, "messages is not a list of messages"),
        ({"messages": messages(A)}, "empty prompt"),
    ],
)
def test_rows_that_hold_no_prompt(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRow) as caught:
        read_prompt(values, "prompts")
    assert caught.value.reason == reason


# ------------------------------------------------------------------------------------------------------- demonstrations


@pytest.mark.parametrize(
    ("values", "turns", "response"),
    [
        ({"prompt": "p", "completion": " c"}, [("u", "p")], " c"),
        ({"prompt": messages(U), "completion": messages(A)}, [U], "good"),
        ({"prompt": "p", "completion": messages(A)}, [("u", "p")], "good"),
        ({"prompt": HH, "completion": " c"}, HH_TURNS, "c"),
        ({"messages": messages(("s", "S"), U, A, ("u", "x"), B)}, [("s", "S"), U, A, ("u", "x")], "bad"),
        ({"prompt": "ignored", "messages": messages(U, A)}, [U], "good"),
    ],
)
def test_demonstrations(values: dict[str, Any], turns: Turns, response: str) -> None:
    read = read_demonstration(values)
    assert (turns_of(read.prompt), read.response) == (turns, response)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"prompt": "p"}, "missing messages"),
        ({"completion": "c"}, "missing prompt"),
        ({"prompt": "p", "completion": None}, "missing completion"),
        ({"prompt": "p", "completion": " "}, "empty response"),
        ({"prompt": "p", "completion": messages(U)}, "completion is not one assistant turn"),
        ({"messages": messages(U)}, "no assistant turn at the end"),
        ({"messages": messages(U, ("a", ""))}, "empty response"),
        ({"messages": messages(("u", ""), A)}, "empty prompt"),
    ],
)
def test_rows_that_hold_no_demonstration(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRow) as caught:
        read_demonstration(values)
    assert caught.value.reason == reason


# ------------------------------------------------------------------------------------------------------- judged answers

RANKING = {"prompt": "p", "responses": ["a", "b", "c"], "scores": [1, 3.5, -2], "authors": ["x", "y", "x"]}
PAIR = {"prompt": "p", "chosen": "a", "rejected": "b"}


@pytest.mark.parametrize(
    ("values", "row_format", "answers"),
    [
        (RANKING, "rankings", [("a", 1.0, "x"), ("b", 3.5, "y"), ("c", -2.0, "x")]),
        (
            RANKING | {"prompt": messages(U), "authors": None},
            "rankings",
            [("a", 1.0, "unknown"), ("b", 3.5, "unknown"), ("c", -2.0, "unknown")],
        ),
        (
            {"prompt": "p", "responses": ["a", "b"], "scores": [0, 0]},
            "rankings",
            [("a", 0.0, "unknown"), ("b", 0.0, "unknown")],
        ),
        (PAIR, "preference", [("a", 1.0, "chosen"), ("b", 0.0, "rejected")]),
        (PAIR | {"score_chosen": 8.5, "score_rejected": 4}, "preference", [("a", 8.5, "chosen"), ("b", 4.0, "rejected")]),
        (PAIR | {"score_chosen": "2", "score_rejected": "2"}, "preference", [("a", 2.0, "chosen"), ("b", 2.0, "rejected")]),
        (PAIR | {"score_chosen": None, "score_rejected": None}, "preference", [("a", 1.0, "chosen"), ("b", 0.0, "rejected")]),
        ({"chosen": HH + " a", "rejected": HH + " b"}, "hh", [("a", 1.0, "chosen"), ("b", 0.0, "rejected")]),
    ],
)
def test_judged_answers(values: dict[str, Any], row_format: Any, answers: list[tuple[str, float, str]]) -> None:
    assert read_judged(values, row_format).answers == tuple(ScoredRow(*answer) for answer in answers)


@pytest.mark.parametrize(
    ("values", "row_format", "reason"),
    [
        (RANKING | {"scores": [1, 2]}, "rankings", "responses and scores differ in length"),
        (RANKING | {"authors": ["x"]}, "rankings", "responses and authors differ in length"),
        (RANKING | {"authors": ["x", "", "y"]}, "rankings", "authors are not text"),
        (RANKING | {"scores": None}, "rankings", "missing scores"),
        (RANKING | {"scores": 3}, "rankings", "scores is not a list"),
        (RANKING | {"responses": "abc"}, "rankings", "responses is not a list"),
        (RANKING | {"responses": ["a", None, "c"]}, "rankings", "missing response"),
        (RANKING | {"responses": ["a", "\n", "c"]}, "rankings", "empty response"),
        (RANKING | {"scores": [1, 2, float("nan")]}, "rankings", "score is not a finite number"),
        (RANKING | {"scores": [1, 2, float("-inf")]}, "rankings", "score is not a finite number"),
        (RANKING | {"scores": [1, 2, 10**400]}, "rankings", "score is not a finite number"),
        (RANKING | {"scores": [1, 2, True]}, "rankings", "score is not a finite number"),
        (RANKING | {"scores": [1, 2, None]}, "rankings", "score is not a finite number"),
        (RANKING | {"scores": [1, 2, "high"]}, "rankings", "score is not a finite number"),
        ({"prompt": "p", "responses": ["a"], "scores": [1]}, "rankings", "fewer than two responses"),
        ({"prompt": "p", "responses": [], "scores": []}, "rankings", "fewer than two responses"),
        ({"prompt": "p", "chosen": "a", "rejected": "a"}, "preference", "chosen equals rejected"),
        ({"chosen": HH + " a", "rejected": HH + "  a"}, "hh", "chosen equals rejected"),
        ({"chosen": HH, "rejected": HH + " a"}, "hh", "empty response"),
        ({"prompt": "p", "chosen": "a", "rejected": ""}, "preference", "empty response"),
        ({"prompt": "p", "chosen": "a"}, "preference", "missing rejected"),
        (PAIR | {"score_chosen": 1}, "preference", "score is not a finite number"),
        (PAIR | {"score_chosen": 1, "score_rejected": 2}, "preference", "chosen has the lower score"),
        ({"chosen": "Q? a", "rejected": "Q? b"}, "hh", "not a Human/Assistant transcript"),
        ({"chosen": messages(U, A), "rejected": messages(U, B)}, "hh", "not a Human/Assistant transcript"),
    ],
)
def test_rows_that_hold_no_judged_answers(values: dict[str, Any], row_format: Any, reason: str) -> None:
    with pytest.raises(BadRow) as caught:
        read_judged(values, row_format)
    assert caught.value.reason == reason


# -------------------------------------------------------------------------------------------------------------- formats


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"prompt": "p"}, "prompts"),
        ({"messages": []}, "prompts"),
        ({"prompt": "p", "completion": "c", "label": True}, "prompts"),
        (RANKING, "rankings"),
        (PAIR, "preference"),
        ({"chosen": messages(U, A), "rejected": messages(U, B)}, "preference"),
        ({"chosen": "Q? a", "rejected": "Q? b"}, "preference"),
        ({"chosen": HH + " a", "rejected": HH + " b"}, "hh"),
        ({"prompt": HH, "chosen": HH + " a", "rejected": HH + " b"}, "preference"),
    ],
)
def test_the_format_is_read_off_the_columns(values: dict[str, Any], expected: Format) -> None:
    assert format_of(SourceRow("x row 1", values)) == expected


def test_columns_that_fit_no_format() -> None:
    message = r"^x row 1: unknown row format; the columns are question, answer\..*`columns: \{prompt: question\}`"
    with pytest.raises(DataError, match=message):
        format_of(SourceRow("x row 1", {"question": "q", "answer": "a"}))


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("a\x00b", "a\x00b"),
        ("a\ud800b", "a\ufffdb"),
        ("\udc00", "\ufffd"),
        ("\ud83d\ude00", "\U0001f600"),  # two halves that belong together
        ("مرحبا 👩‍👩‍👧", "مرحبا 👩‍👩‍👧"),
    ],
)
def test_strange_characters(text: str, read: str) -> None:
    (message,) = read_prompt({"prompt": text}, "prompts")
    assert message.content == read
    assert type(message).model_validate_json(message.model_dump_json()) == message
