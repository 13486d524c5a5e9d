"""Tables on terminals of several widths, and where there is none."""

import re
import sys

import pytest

from aligndistill.commands.output import print_table
from aligndistill.reporting.table import LEAVES_OUT, render_table
from tests.reporting.fake_run import full_report


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    print_table(render_table(full_report()), LEAVES_OUT, "report.html")
    return [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_a_terminal_has_what_fits(width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(width))
    lines = printed(capsys)
    assert max(map(len, lines)) <= width
    assert "…" not in "".join(lines)
    assert any("0.68 [0.63, 0.73]" in line for line in lines)
    assert ("hidden" in " ".join(lines)) == (width < 90)


def test_without_a_terminal_there_is_everything(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    lines = printed(capsys)
    assert "hidden" not in " ".join(lines)
    assert any(" ".join(line.split()) == "pro * 0.68 [0.63, 0.73] 0.74 [0.69, 0.79] 0.72 12.3 34.2 1.25 38 s" for line in lines)


COLOUR = re.compile(r"\x1b\[(?:\d+;)*[349]\d[;m]")
"""Sets a colour of the text or its background: ECMA-48, 8.3.117."""


@pytest.mark.parametrize(
    ("variables", "is_terminal", "coloured", "bold"),
    [
        ({}, True, True, True),
        ({}, False, False, False),
        ({"NO_COLOR": "1"}, True, False, True),
        ({"FORCE_COLOR": "1"}, False, True, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False, False, True),
        ({"TERM": "dumb"}, True, False, False),
    ],
)
def test_colours_are_those_that_the_environment_asks_for(
    variables: dict[str, str],
    is_terminal: bool,
    coloured: bool,
    bold: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "60", **variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    print_table(render_table(full_report()), LEAVES_OUT, "report.html")
    text = capsys.readouterr().out
    assert (bool(COLOUR.search(text)), "\x1b[1" in text) == (coloured, bold)
    assert ("hidden" in text) == is_terminal  # what is no terminal has all columns, coloured or not
