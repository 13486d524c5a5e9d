"""No number is cut: whole columns go, by priority, and are named."""

import io
import re

import pytest
from rich.console import Console

from aligndistill.reporting.fitting import fit, natural_width
from aligndistill.reporting.table import LEAVES_OUT, render_table
from tests.reporting.fake_run import full_report


def printed(width: int) -> list[str]:
    table = render_table(full_report())
    fit(table, width, LEAVES_OUT, "report.html")
    output = io.StringIO()
    Console(file=output, width=width, color_system=None).print(table)
    return output.getvalue().splitlines()


def numbers(lines: list[str]) -> dict[str, list[str]]:
    """The figures of each model, intervals as one."""
    rows = [line for line in lines if re.match(r"(start|teacher|dpo|pro) ", line)]
    return {line.split()[0]: re.split(r"  +", line.strip())[1:] for line in rows}


def heads(lines: list[str]) -> list[str]:
    return re.split(r"  +", next(line for line in lines if line.startswith("model")).strip())[1:]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200])
def test_a_narrow_table_is_the_wide_one_without_some_columns(width: int) -> None:
    lines, wide = printed(width), printed(1000)
    assert max(map(len, lines)) <= width
    assert "…" not in "".join(lines)
    shown, every = heads(lines), heads(wide)
    assert numbers(lines).keys() == numbers(wide).keys()
    for name, figures in numbers(lines).items():
        whole = dict(zip(every, numbers(wide)[name], strict=True))
        assert figures == [whole[heading] for heading in shown]
    hidden = [heading for heading in every if heading not in shown]
    text = " ".join(" ".join(lines).split())
    assert (f"hidden ({', '.join(hidden)}); see report.html" in text) == bool(hidden)
    first_to_go = [heading for heading in LEAVES_OUT if heading in every]
    assert set(hidden) == set(first_to_go[: len(hidden)])


def test_columns_go_in_the_order_given_and_only_as_many_as_needed() -> None:
    table = render_table(full_report())
    width = natural_width(table)
    fit(table, width, LEAVES_OUT, "x")
    assert "hidden" not in str(table.caption)
    fit(table, width - 1, LEAVES_OUT, "x")
    assert [str(column.header) for column in table.columns][-1] == "reward"
    assert "1 column hidden (training); see x" in str(table.caption)


def test_what_is_too_wide_still_wraps_whole() -> None:
    lines = printed(18)
    assert "…" not in "".join(lines)
    assert "0.68" in "".join(lines)
