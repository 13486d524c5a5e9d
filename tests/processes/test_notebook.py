from collections.abc import Iterator
from pathlib import Path
from typing import Any

import IPython.display
import pytest

from aligndistill.processes import notebook, progress
from aligndistill.processes.notebook import Output
from aligndistill.processes.progress import bar, run_progress, say, track
from tests.clock import set_clock


class Outputs:
    """A notebook's cell: the text of each output, and how often one was sent."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.sent = 0

    def display(self, data: dict[str, str], raw: bool, display_id: bool) -> "Handle":
        assert raw
        assert display_id
        self.texts.append(data["text/plain"])
        self.sent += 1
        return Handle(self, len(self.texts) - 1)


class Handle:
    def __init__(self, outputs: Outputs, number: int) -> None:
        self.outputs, self.number = outputs, number

    def update(self, data: dict[str, str], raw: bool) -> None:
        assert raw
        self.outputs.texts[self.number] = data["text/plain"]
        self.outputs.sent += 1


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which a test sets."""
    return set_clock(monkeypatch, progress, notebook)


@pytest.fixture
def outputs(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> Outputs:
    found = Outputs()
    monkeypatch.setattr(progress, "IN_NOTEBOOK", True)
    monkeypatch.setattr(progress, "_output", Output())
    monkeypatch.setattr(IPython.display, "display", found.display)
    return found


def items(number: int, clock: list[float], seconds: float) -> Iterator[int]:
    for one in range(number):
        clock[0] += seconds
        yield one


def test_a_run_is_one_output_with_its_finished_stages(outputs: Outputs, clock: list[float]) -> None:
    with run_progress(3) as shown:
        for number, name in enumerate(["prompts", "verdicts"], 1):
            shown.begin(name, number)
            for one in track(items(100, clock, 0.1), name, 100):
                if name == "verdicts" and one == 60:
                    finished, run, count = outputs.texts[0].splitlines()
                    assert finished == "prompts              100 rows"
                    assert run.startswith("run               stage 2/3 verdicts")
                    assert " 60/100 " in count
            shown.finish("100 rows", Path("store"))
    assert outputs.texts == ["prompts              100 rows\nverdicts             100 rows"]
    assert outputs.sent <= 2 * 10 / notebook.SECONDS_BETWEEN_UPDATES + 12  # not once an item


def test_the_next_run_has_an_output_of_its_own(outputs: Outputs) -> None:
    for name in "ab":
        with run_progress(1) as shown:
            shown.begin(name, 1)
            shown.finish("done", Path("store"))
    assert outputs.texts == [f"{name:20} done" for name in "ab"]


def test_what_failed_stays_as_it_was(outputs: Outputs, clock: list[float]) -> None:
    def fails() -> None:
        with run_progress(2) as shown:
            shown.begin("verdicts", 1)
            with bar("verdicts", 9) as running:
                clock[0] += 1
                running.set(4)
                raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fails()
    run, count = outputs.texts[0].splitlines()
    assert "stage 1/2 verdicts" in run
    assert " 4/9" in count


def test_a_count_alone_stays_with_its_end(outputs: Outputs, clock: list[float]) -> None:
    list(track(items(7, clock, 0.01), "pairs", 7))
    (text,) = outputs.texts
    assert " 7/7" in text


@pytest.mark.parametrize("variable", [(progress.QUIET, "1"), ("ALIGNDISTILL_LOG_FORMAT", "json")])
def test_quiet_shows_nothing_and_json_lines(
    variable: tuple[str, str], outputs: Outputs, clock: list[float], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv(*variable)
    with run_progress(2) as shown:
        shown.begin("verdicts", 1)
        say("a message")
    assert outputs.texts == []
    printed = capsys.readouterr()
    assert "a message" in printed.out + printed.err
