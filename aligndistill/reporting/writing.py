"""Formatting of numbers and names, for the page and the terminal."""

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


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever reads best."""
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 9.95 else f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def shortened(name: str, length: int) -> str:
    """A name of at most `length` characters."""
    return name if len(name) <= length else name[: length - 3] + "..."


def _decimals(size: float) -> int:
    return 2 if size < 9.995 else 1 if size < 99.95 else 0


def _written(value: float, decimals: int) -> str:
    written = f"{value:,.{decimals}f}"
    return written.lstrip("-") if float(value) > -0.5 * 10**-decimals else written  # no "-0.00"
