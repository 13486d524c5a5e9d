import re
from collections.abc import Iterator

import pytest
from rich.console import Console

from aligndistill.processes import progress
from aligndistill.processes.progress import bar, duration, track


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which a test sets."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "console", Console(highlight=False, force_terminal=False, width=200))


def items(number: int, clock: list[float], seconds: float) -> Iterator[int]:
    for one in range(number):
        clock[0] += seconds
        yield one


def test_a_log_has_a_line_every_ten_seconds_with_rate_and_time_left(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    list(track(items(60, clock, 0.5), "verdicts", 60))
    assert capsys.readouterr().out.splitlines() == [
        "  verdicts: 20/60 (33%), 2/s, 20 s left",
        "  verdicts: 40/60 (66%), 2/s, 10 s left",
        "  verdicts: 60/60 (100%), 2/s, 0 s left",
    ]


def test_what_was_done_before_is_said_and_has_no_part_in_the_rate(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    list(track(items(30, clock, 20.0), "answers of start", 100, done=70, note=lambda: "7 requests, 99 tokens, 0.01 USD"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "  answers of start: resuming at 70 of 100"
    assert lines[1] == "  answers of start: 71/100 (71%), 7 requests, 99 tokens, 0.01 USD"
    assert lines[2] == "  answers of start: 72/100 (72%), 20 s each, 9 min left, 7 requests, 99 tokens, 0.01 USD"


def test_items_that_come_in_batches_are_counted_by_batches(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    def batches() -> Iterator[int]:
        for one in range(300):
            clock[0] += 40 if one % 100 == 0 else 0.001
            yield one

    list(track(batches(), "answers of start", 300))
    assert capsys.readouterr().out.splitlines() == [
        "  answers of start: 1/300 (0%)",
        "  answers of start: 100/300 (33%), 2.49/s, 1 min left",
        "  answers of start: 200/300 (66%), 2.49/s, 40 s left",
    ]


def test_the_last_note_stays(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with bar("student-dpo") as running:
        running.expect(10)
        running.set(1, note="loss 0.693")
        clock[0] += 11
        running.set(2)
    assert re.search(r"2/10 \(20%\), .* loss 0\.693$", capsys.readouterr().out.strip())


@pytest.mark.parametrize(("seconds", "text"), [(3, "3 s"), (59.4, "59 s"), (240, "4 min"), (4800, "1 h 20 min")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
