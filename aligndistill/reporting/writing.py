"""Formatting of numbers and names, for the page and the terminal."""

from collections.abc import Iterator, Sequence
from textwrap import wrap

from aligndistill.evaluation.intervals import Mean


def number(value: float) -> str:
    """A number: two decimals below ten, one below a hundred, none above."""
    return _written(value, _decimals(abs(value)))


def interval(figure: Mean) -> str:
    """`[low, high]`."""
    decimals = _decimals(max(abs(figure.low), abs(figure.high)))
    return f"[{_written(figure.low, decimals)}, {_written(figure.high, decimals)}]"


def with_interval(figure: Mean) -> str:
    """`mean [low, high]`, all with the same number of decimals."""
    decimals = _decimals(max(abs(figure.low), abs(figure.high)))
    return f"{_written(figure.mean, decimals)} {interval(figure)}"


FEW = 20
"""Below this many a count is shown instead of a share with its interval."""


def share(figure: Mean) -> str:
    """A share in per cent with its interval: `62% [58%, 66%]`; of fewer than twenty, `1 of 4`."""
    if figure.n >= FEW:
        return f"{100 * figure.mean:.0f}% [{100 * figure.low:.0f}%, {100 * figure.high:.0f}%]"
    count = figure.mean * figure.n
    if abs(2 * count - round(2 * count)) < 1e-6:  # whole, or with ties that count half
        return f"{round(2 * count) / 2:g} of {figure.n}"
    return f"{100 * figure.mean:.0f}% (n = {figure.n})"  # of several values for each of n prompts


def signed(figure: Mean) -> str:
    """A difference with its interval: `+0.03 [-0.01, +0.07]`."""
    decimals = _decimals(max(abs(figure.low), abs(figure.high)))
    mean, low, high = (f"{value:+,.{decimals}f}" for value in (figure.mean, figure.low, figure.high))
    return f"{mean} [{low}, {high}]"


def large(count: float) -> str:
    """A large count in three digits: `270M`, `1.2B`."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:g}"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever reads best."""
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 9.95 else f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def size_text(size_bytes: int) -> str:
    """`12 kB`, `3.4 MB`, `1.2 GB`; units of 1,000."""
    for unit, bytes_each in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size_bytes >= bytes_each:
            number = size_bytes / bytes_each
            return f"{number:.1f} {unit}" if number < 10 else f"{number:.0f} {unit}"
    return f"{size_bytes} B"


def shortened(name: str, length: int) -> str:
    """A name of at most `length` characters."""
    return name if len(name) <= length else name[: length - 3] + "..."


def _decimals(size: float) -> int:
    return 2 if size < 9.995 else 1 if size < 99.95 else 0


def _written(value: float, decimals: int) -> str:
    written = f"{value:,.{decimals}f}"
    return written.lstrip("-") if float(value) > -0.5 * 10**-decimals else written  # no "-0.00"


def hidden_columns(headings: Sequence[str], see: str) -> str:
    """That a narrow terminal does not show these columns of a table, and where they are."""
    return f"{len(headings)} column{'s' * (len(headings) > 1)} hidden ({', '.join(headings)}); see {see}"


def wrapped(line: str, width: int | None, indent: str = "") -> Iterator[str]:
    """A line as lines of at most `width` characters, as it is without a width; what goes on is indented."""
    yield from wrap(line, width, subsequent_indent=indent) if width else [line]
