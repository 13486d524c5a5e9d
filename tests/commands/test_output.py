"""Tables on terminals of several widths, and where there is none."""

import re

import pytest

from aligndistill.commands.output import print_table
from aligndistill.reporting.table import LEAVES_OUT, render_table
from tests.reporting.fake_run import full_report


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    print_table(render_table(full_report()), LEAVES_OUT, "report.html")
    return [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_a_terminal_has_what_fits(width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # which makes rich take the output for a terminal
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
