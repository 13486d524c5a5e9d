import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from aligndistill.processes import progress
from aligndistill.processes.progress import Bar, RunProgress, bar, doing, run_progress, say, track
from aligndistill.processes.screen import CountTexts, count_line, fitting, rough_duration
from tests.clock import set_clock

STAMP = r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d "


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which a test sets."""
    return set_clock(monkeypatch, progress)


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "console", Console(highlight=False, force_terminal=False, width=200))


def items(number: int, clock: list[float], seconds: float) -> Iterator[int]:
    for one in range(number):
        clock[0] += seconds
        yield one


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines of a log without their time stamps, which each of them has."""
    found = capsys.readouterr().out.splitlines()
    assert all(re.match(STAMP, line) for line in found)
    return [re.sub(STAMP, "", line) for line in found]


def test_a_log_has_a_line_every_half_minute_with_rate_and_time_left(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    list(track(items(60, clock, 1.5), "verdicts", 60))
    assert lines(capsys) == [
        "  verdicts: 4/60 (6%), 1.5 s each, 1 min left",  # the first one after 5 s
        "  verdicts: 24/60 (40%), 1.5 s each, 54 s left",
        "  verdicts: 44/60 (73%), 1.5 s each, 24 s left",
    ]


def test_what_was_done_before_is_said_and_has_no_part_in_the_rate(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    list(track(items(30, clock, 40.0), "answers of start", 100, done=70, note=lambda: "7 requests, 99 tokens, 0.01 USD"))
    found = lines(capsys)
    assert found[0] == "  answers of start: resuming at 70 of 100"
    assert found[1] == "  answers of start: 71/100 (71%), 7 requests, 99 tokens, 0.01 USD"
    assert found[2] == "  answers of start: 72/100 (72%), 40 s each, 19 min left, 7 requests, 99 tokens, 0.01 USD"


def test_items_that_come_in_batches_are_counted_by_batches(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    def batches() -> Iterator[int]:
        for one in range(300):
            clock[0] += 40 if one % 100 == 0 else 0.001
            yield one

    list(track(batches(), "answers of start", 300))
    assert lines(capsys) == [
        "  answers of start: 1/300 (0%)",
        "  answers of start: 100/300 (33%), 2.49/s, 1 min left",
        "  answers of start: 200/300 (66%), 2.49/s, 40 s left",
    ]


def test_the_rate_is_that_of_the_last_minute(clock: list[float]) -> None:
    running = Bar("verdicts", 1000)
    for _ in items(100, clock, 1.0):
        running.advance()
    for _ in items(650, clock, 0.1):
        running.advance()
    assert " 10/s" in running.line(200)  # 750 in 165 s are 4.5 a second
    assert "ETA 25 s" in running.line(200)


def test_no_time_left_is_told_in_the_first_five_seconds(clock: list[float]) -> None:
    running = Bar("verdicts", 100)
    for _ in items(4, clock, 1.0):
        running.advance()
    assert "1/s" in running.line(200)
    assert "ETA" not in running.line(200)
    for _ in items(1, clock, 1.0):
        running.advance()
    assert "ETA 2 min" in running.line(200)


def test_the_last_note_stays(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with bar("student-dpo") as running:
        running.expect(10)
        running.set(1, note="loss 0.693")
        clock[0] += 31
        running.set(2)
    assert re.search(r"2/10 \(20%\), .* loss 0\.693$", lines(capsys)[0])


@pytest.mark.parametrize("width", [60, 80, 100, 120, 140])
def test_nothing_of_a_line_is_cut_or_moves_while_numbers_grow(width: int) -> None:
    early = count_line(CountTexts("verdicts", 4, 3929), width)
    full = CountTexts("verdicts", 1840, 3929, "12.5 s each", "1 h 20 min", "1,250 requests, 99,000 tokens, 12.34 USD")
    late = count_line(full, width)
    assert max(len(early), len(late)) <= width
    assert early.index("/3,929") == late.index("/3,929")
    for part in late.split("  ")[-1].split(", "):
        assert part in ("1,250 requests", "99,000 tokens", "12.34 USD", "ETA 1 h 20 min")
    assert ("12.34 USD" in late) == (width >= 140)


def test_a_line_has_a_bar_where_there_is_room() -> None:
    assert "━" * 10 + "─" * 10 in count_line(CountTexts("a", 5, 10), 120)
    assert "=====-----" in count_line(CountTexts("a", 5, 10), 100, ascii_only=True)
    assert "━" not in count_line(CountTexts("a", 5, 10), 55)
    assert "─" * 10 in count_line(CountTexts("a", 5, None), 100)  # its place, while the total is not known


def test_whole_parts_are_kept() -> None:
    assert fitting(["one", "two", "three"], 8, ", ") == "one, two"
    assert fitting(["one", "two"], 2, ", ") == ""


def test_a_log_tells_where_the_run_is(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with run_progress(24) as shown:
        shown.begin("prompts", 1)
        shown.finish("12 prompts; 0.2 s", Path("store/prompts-0"))
        shown.begin("verdicts", 5, left_seconds=540.0)
        shown.begin("audit", 6, left_seconds=30.0, at_least=True)
    assert lines(capsys) == [
        "prompts: stage 1/24",
        "  prompts: 12 prompts; 0.2 s",
        "verdicts: stage 5/24, about 9 min left",
        "audit: stage 6/24, at least 30 s left",
    ]


def test_the_line_of_a_run_counts_down_and_has_what_was_spent(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    shown = RunProgress(24, lambda: "120 requests, 1.24 USD of 5.00")
    assert shown.line(100) == ""
    shown.begin("verdicts", 5, left_seconds=540.0)
    clock[0] += 120
    whole = "run               stage 5/24 verdicts · 2 min · about 7 min left · 120 requests, 1.24 USD of 5.00"
    assert shown.line(100) == whole
    assert shown.line(80) == whole.rpartition(" · ")[0]
    clock[0] += 600
    assert "left" not in shown.line(100)  # it takes longer than was expected


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Console:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    found = Console(highlight=False, force_terminal=True, width=100, color_system=None)
    monkeypatch.setattr(progress, "console", found)
    return found


def test_a_terminal_shows_the_run_above_the_count(terminal: Console, capsys: pytest.CaptureFixture[str]) -> None:
    with run_progress(3) as shown:
        shown.begin("verdicts", 2)
        with bar("verdicts", 10) as running:
            running.set(5)
            terminal.print(progress._screen)
        shown.finish("10 verdicts; 1.0 s", Path("store"))
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().out)
    assert "stage 2/3 verdicts" in text
    assert " 5/10" in text
    assert "verdicts             10 verdicts; 1.0 s" in text
    assert not re.search(STAMP, text, re.MULTILINE)


@pytest.mark.parametrize(("name", "value", "forced"), [("FORCE_COLOR", "1", None), ("TERM", "dumb", True)])
def test_what_cannot_change_its_lines_is_a_log(
    name: str,
    value: str,
    forced: bool | None,
    clock: list[float],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of FORCE_COLOR=1 in a log, and of a terminal such as that of an editor."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(progress, "console", Console(highlight=False, force_terminal=forced, width=200))
    assert progress.console.is_terminal
    with run_progress(3) as shown:
        shown.begin("verdicts", 2)
        list(track(items(1, clock, 31.0), "verdicts", 1))
        shown.finish("1 verdict; 31.0 s", Path("store"))
    assert lines(capsys) == ["verdicts: stage 2/3", "  verdicts: 1/1 (100%)", "  verdicts: 1 verdict; 31.0 s"]


def test_quiet_hides_progress_and_keeps_messages(
    monkeypatch: pytest.MonkeyPatch, clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(progress.QUIET, "1")
    with run_progress(3) as shown:
        shown.begin("verdicts", 2)
        list(track(items(60, clock, 10.0), "verdicts", 60))
        shown.finish("done", Path("store"))
        say("the judge is slow")
    assert lines(capsys) == ["the judge is slow"]


def test_verbose_shows_folders(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv(progress.VERBOSE, "1")
    with run_progress(3) as shown:
        shown.begin("verdicts", 2)
        shown.finish("9 verdicts; 0.1 s", Path("store/verdicts-0"))
    assert lines(capsys)[1] == "  verdicts: 9 verdicts; 0.1 s; store/verdicts-0"


def test_what_takes_long_says_what_it_is(
    terminal: Console, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    timers: list[tuple[float, bool]] = []

    class Timer:
        """Fires at once, as if the time were over."""

        def __init__(self, seconds: float, call: object, arguments: list[str]) -> None:
            self.seconds, self.arguments = seconds, arguments

        def start(self) -> None:
            say(*self.arguments)

        def cancel(self) -> None:
            timers.append((self.seconds, True))

    monkeypatch.setattr(threading, "Timer", Timer)
    with doing("reading verdicts"):
        pass
    assert capsys.readouterr().out == "reading verdicts ...\n"
    assert timers == [(0.5, True)]


@pytest.mark.parametrize(("seconds", "text"), [(3, "3 s"), (59.4, "59 s"), (240, "4 min"), (4800, "1 h 20 min")])
def test_durations(seconds: float, text: str) -> None:
    assert rough_duration(seconds) == text
