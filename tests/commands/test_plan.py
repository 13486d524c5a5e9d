"""Prices and times of a plan; tests/e2e/test_plan_and_budget.py compares plans with what runs ask."""

import re
from typing import Any

import pytest

from aligndistill.chat.http.budget import Spending
from aligndistill.commands.plan.chats import Estimate
from aligndistill.commands.plan.memory import MemoryEstimate
from aligndistill.commands.plan.table import (
    HEADINGS,
    _remarks,
    _row,
    aligned,
    memory_lines,
    price_usd,
    request_lines,
    request_seconds,
)
from aligndistill.config.budget import Budget, Price
from aligndistill.config.models import EndpointModel
from aligndistill.records import Usage

ASKED = Usage(calls=600, prompt_tokens=300_000, completion_tokens=60_000)


def estimate(**settings: Any) -> Estimate:
    server = EndpointModel(kind="endpoint", base_url="http://localhost/v1", name="m", concurrency=10, **settings)
    return Estimate("m", server, 100, 1200, 600, ASKED, exact_tokens=True, certain=False, possible_thought_tokens=4096)


def test_the_price_is_that_of_both_kinds_of_tokens() -> None:
    budget = Budget(prices={"m": Price(prompt=2.0, completion=5.0)})
    assert price_usd(estimate(), budget) == pytest.approx(0.3 * 2 + 0.06 * 5)
    assert price_usd(estimate(), Budget()) is None


@pytest.mark.parametrize(
    ("settings", "spent", "seconds"),
    [
        ({}, [], 600 * 2 / 10),
        (
            {},
            [Spending(model="m", seconds=1.0), Spending(model="m", seconds=2.0), Spending(model="other", seconds=99.0)],
            600 * 1.5 / 10,
        ),
        ({}, [Spending(model="m", seconds=0.0)], 600 * 2 / 10),  # a try that failed says nothing of how long an answer takes
        ({"requests_per_minute": 100}, [], 360),
        ({"tokens_per_minute": 36_000}, [], 600),
        ({"requests_per_minute": 10_000, "tokens_per_minute": 10**9}, [], 120),
    ],
)
def test_the_time_is_that_of_the_narrowest_place(settings: dict[str, Any], spent: list[Spending], seconds: float) -> None:
    assert request_seconds(estimate(**settings), spent) == pytest.approx(seconds)


def test_a_line_says_what_is_assumed() -> None:
    assert _row("verdicts", estimate(), Budget(), []) == (
        *("verdicts", "m", "100", "<= 1,200", "<= 600", "<= 600", "<= 300,000", "<= 60,000", "no price", "2.0 min"),
    )


@pytest.mark.parametrize(("limit", "word"), [(700, "enough"), (699, "NOT ENOUGH")])
def test_what_was_spent_counts_for_the_budget(limit: int, word: str) -> None:
    spent = [Spending(model="m", requests=60), Spending(model="other", requests=40)]
    (line,) = (line for line in _remarks(Budget(requests=limit), [estimate()], spent) if line.startswith("budget.requests"))
    assert line.startswith(f"budget.requests: {limit}, spent 100, planned 600: {word}")


@pytest.mark.parametrize("width", [60, 80, 140])
def test_tables_fit_a_terminal_by_whole_columns_that_are_named(width: int) -> None:
    estimates = [("student-ppo_teacher", estimate()), ("verdicts", estimate())]
    lines = list(request_lines(estimates, Budget(), [], width))
    row = dict(zip(HEADINGS, _row("student-ppo_teacher", estimate(), Budget(), []), strict=True))
    assert all(len(line) <= width for line in lines)
    hidden = re.search(r"columns hidden \(([^)]*)\); see --json", " ".join(lines))
    left = [head for head in HEADINGS if hidden is None or head not in hidden[1].split(", ")]
    assert lines[1].split() == " ".join(left).split()
    assert lines[2].split() == " ".join(row[head] for head in left).split()
    assert {"stage", "model", "requests", "USD", "time"} <= {*left}
    assert (hidden is None) == (width == 140)
    memory = {"student-ppo_teacher": MemoryEstimate(*(3 * 2**40 for _ in range(5)))}
    assert all(len(line) <= width for line in memory_lines(memory, width))


def test_without_a_terminal_every_column_with_a_value_is_there() -> None:
    rows = [("stage", "USD", "time"), ("a" * 90, "", "1 s"), ("b", "", "12 s")]
    assert list(aligned(rows, (0,), ("time",))) == [f"stage{' ' * 87}time", f"{'a' * 90}   1 s", f"b{' ' * 91}12 s"]
    assert list(aligned(rows[:1] + rows[2:], (0,), ("time",), 9)) == [
        "stage",
        "b",
        "1 column",
        "hidden",
        "(time);",
        "see",
        "--json",
    ]
