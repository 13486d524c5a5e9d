"""Lines at the bottom of a terminal that change while other lines scroll above them, and how their figures are written."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

Line = Callable[[int], str]
"""A line for a terminal of this width, characters."""

REFRESHES_PER_SECOND = 4
LABEL_COLUMNS = {110: 26, 0: 16}
"""How long a label is, on terminals of at least this width."""
RATE_COLUMNS, LEFT_COLUMNS = 11, 14
BAR_COLUMNS = {120: 20, 80: 10}
"""How long a bar is, on terminals of at least this width. Columns are fixed, so that nothing moves while a number grows."""


def can_change(console: Console) -> bool:
    """Whether lines may change there: a terminal that is not `TERM=dumb`. FORCE_COLOR colours a log and makes no terminal of it."""
    is_forced = bool(os.environ.get("FORCE_COLOR")) and not console.file.isatty()
    return console.is_terminal and not console.is_dumb_terminal and not is_forced


class Screen:
    """The lines that are shown now."""

    def __init__(self) -> None:
        self._lines: list[Line] = []

    @contextmanager
    def showing(self, line: Line, console: Console) -> Iterator[None]:
        """Show a line below those that are there already."""
        self._lines.append(line)
        try:
            if len(self._lines) > 1:
                yield
            else:
                with Live(self, console=console, transient=True, refresh_per_second=REFRESHES_PER_SECOND):
                    yield
        finally:
            self._lines.remove(line)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in tuple(self._lines):
            yield Text(line(options.max_width), no_wrap=True, overflow="crop")


def label_columns(width: int) -> int:
    """How long a label is on a terminal of this width, characters."""
    return next(columns for least, columns in LABEL_COLUMNS.items() if width >= least)


def run_line(parts: Sequence[str], width: int) -> str:
    """`run       stage 5/24 verdicts · 3 min`: as many of the parts as fit."""
    return fitting([f"{'run':{label_columns(width)}}  {parts[0]}", *parts[1:]], width, " · ")


@dataclass(frozen=True)
class CountTexts:
    """A running count with what is said about it.

    Attributes:
        rate, left: empty while they are not known; their places on a line stay.
        note: parts with commas, of which a line keeps the first ones that fit.
    """

    label: str
    done: int
    total: int | None
    rate: str = ""
    left: str = ""
    note: str = ""


def count_line(count: CountTexts, width: int, ascii_only: bool = False) -> str:
    """`verdicts  ━━━━────  1,840/3,929  42/s  ETA 50 s   loss 0.69`: what does not fit is left out whole."""
    done, total, label, columns = count.done, count.total, count.label, label_columns(width)
    whole = f"{total:,}" if total is not None else ""
    counted = f"{done:>{len(whole)},}/{whole}" if whole else f"{done:,}"
    name = label if len(label) <= columns else f"{label[: columns - 3]}..."
    left = f"ETA {count.left}" if count.left else ""
    fixed = [name.ljust(columns), counted, count.rate.rjust(RATE_COLUMNS), left.ljust(LEFT_COLUMNS)]
    drawn = next((columns for least, columns in BAR_COLUMNS.items() if width >= least), 0)
    if drawn:
        full = min(drawn, drawn * done // total) if total else 0
        on, off = ("=", "-") if ascii_only else ("━", "─")
        fixed.insert(1, on * full + off * (drawn - full))
    room = width - len("  ".join(fixed)) - 2
    kept = fitting(count.note.split(", "), room, ", ") if count.note else ""
    return "  ".join([*fixed, *([kept] if kept else [])]).rstrip()


def count_text(count: CountTexts) -> str:
    """`verdicts: 120/960 (12%), 3.4/s, 4 min left, 310,000 tokens`: the same for a log."""
    done, total = count.done, count.total
    counted = f"{done}/{total}" if total is not None else f"{done}"
    share = f" ({100 * done // total}%)" if total else ""
    left = f"{count.left} left" if count.left else ""
    return f"{count.label}: {', '.join(filter(None, (counted + share, count.rate, left, count.note)))}"


def fitting(parts: Sequence[str], width: int, between: str) -> str:
    """As many of the first parts as fit into the width."""
    found = ""
    for part in parts:
        longer = f"{found}{between}{part}" if found else part
        if len(longer) > width:
            break
        found = longer
    return found


def rate_text(per_second: float) -> str:
    """`3.4/s`, or `12 s each` where one takes longer than a second; empty for 0."""
    if per_second <= 0:
        return ""
    return f"{per_second:.3g}/s" if per_second >= 1 else f"{1 / per_second:.3g} s each"


def rough_duration(seconds: float) -> str:
    """`50 s`, `4 min`, `1 h 20 min`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
