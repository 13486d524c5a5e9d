import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from aligndistill.processes import progress
from aligndistill.processes.log_format import LOG_FORMAT, print_error
from aligndistill.processes.progress import run_progress, say, track
from tests.clock import set_clock

KEYS = ["time", "level", "message", "stage", "n", "total", "rate", "eta_s", "usd", "note"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which a test sets; lines are JSON."""
    monkeypatch.setenv(LOG_FORMAT, "json")
    return set_clock(monkeypatch, progress)


def entries(text: str) -> list[dict[str, Any]]:
    """The objects, one a line, each with the same keys and a time with its zone."""
    found = [json.loads(line) for line in text.splitlines()]
    for one in found:
        assert list(one) == KEYS
        assert datetime.fromisoformat(one["time"]).tzinfo is not None
    return found


@pytest.mark.parametrize("is_terminal", [False, True])
def test_every_line_is_an_object_on_a_terminal_too(
    is_terminal: bool, clock: list[float], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "console", Console(highlight=False, force_terminal=is_terminal, width=40))
    say("before :100: the run")  # no emoji: what a person wrote stays

    def items() -> Iterator[int]:
        for one in range(60):
            clock[0] += 1.5
            yield one

    with run_progress(24, lambda: "7 requests, 1.24 USD", lambda: 1.24) as shown:
        shown.begin("verdicts", 5, left_seconds=540.0)
        list(track(items(), "verdicts", 60, note=lambda: "7 requests\nand more"))
        shown.finish("60 verdicts; 90.0 s", Path("store"))
    before, begun, *counted, finished = entries(capsys.readouterr().out)
    assert (before["message"], before["level"], before["stage"], before["usd"]) == ("before :100: the run", "info", None, None)
    assert begun["message"] == "verdicts: stage 5/24, about 9 min left"
    assert (begun["stage"], begun["note"], begun["usd"]) == ("verdicts", "stage 5/24", 1.24)
    expected = ((4, 84.0), (24, 54.0), (44, 24.0))  # after 5 s, then every 30 s
    for one, (n, left) in zip(counted, expected, strict=True):
        assert (one["stage"], one["n"], one["total"], one["usd"], one["note"]) == ("verdicts", n, 60, 1.24, "7 requests\nand more")
        assert (one["rate"], one["eta_s"]) == (pytest.approx(1 / 1.5, abs=1e-4), left)
    assert (finished["stage"], finished["note"]) == ("verdicts", "60 verdicts; 90.0 s")


def test_an_error_is_an_object_or_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    print_error("no such file\nat all")
    assert capsys.readouterr().err == "error: no such file\nat all\n"
    monkeypatch.setenv(LOG_FORMAT, "json")
    print_error("no such file\nat all")
    (found,) = entries(capsys.readouterr().err)
    assert (found["level"], found["message"]) == ("error", "no such file\nat all")
