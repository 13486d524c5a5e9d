"""Plots as SVG without inline style: coordinates and classes, which the style sheet colours."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10

from markupsafe import Markup, escape

from aligndistill.reporting.texts import visible

WIDTH, HEIGHT = 380, 210
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 34
COLOURS = 7

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Scale:
    """From values to pixels, with round values to write."""

    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        """The pixel of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        """Four to nine round values in the range."""
        step = 10 ** floor(log10((self.high - self.low) / 4))
        step *= next(factor for factor in (1, 2, 5, 10) if (self.high - self.low) / (step * factor) <= 6)
        return [number * step for number in range(ceil(self.low / step - 1e-9), floor(self.high / step + 1e-9) + 1)]


def scale(values: Sequence[float], start: float, end: float) -> Scale:
    """A scale over all values, a little wider."""
    low, high = min(values), max(values)
    if low == high:
        low, high = low - (abs(low) * 0.1 or 0.5), high + (abs(high) * 0.1 or 0.5)
    room = 0.04 * (high - low)
    return Scale(low - room, high + room, start, end)


def lines(series: Mapping[str, Points], colours: Mapping[str, int], title: str, x_title: str) -> Markup:
    """Curves of several models over a common axis; dashed after seven, since the colours repeat."""
    series = {name: [point for point in points if all(map(isfinite, point))] for name, points in series.items()}
    every = [point for points in series.values() for point in points]
    if not every:
        return Markup("")
    across = scale([x for x, _ in every], LEFT, WIDTH - RIGHT)
    up = scale([y for _, y in every], HEIGHT - BOTTOM, TOP)
    drawn = []
    for name, points in series.items():
        colour = colours[name]
        kind = f"series s{colour % COLOURS + 1}{' dashed' if colour >= COLOURS else ''}"
        places = " ".join(f"{across.place(x):.1f},{up.place(y):.1f}" for x, y in points)
        if len(points) == 1:
            drawn.append(
                f'<circle class="point s{colour % COLOURS + 1}" cx="{places.replace(",", chr(34) + " cy=" + chr(34))}" r="3"/>'
            )
        else:
            drawn.append(f'<polyline class="{kind}" points="{places}"/>')
    told = "; ".join(f"{name} from {short(points[0][1])} to {short(points[-1][1])}" for name, points in series.items() if points)
    return _svg(f"{title} by {x_title}: {told}.", axes(across, up, x_title), drawn)


def scatter(points: Points, x_title: str, y_title: str) -> Markup:
    """A point for each prompt, with the line on which both are equal."""
    if not points:
        return Markup("")
    both = [value for point in points for value in point]
    across, up = scale(both, LEFT, WIDTH - RIGHT), scale(both, HEIGHT - BOTTOM, TOP)
    ends = [
        f'{axis}{n}="{one.place(value):.1f}"'
        for n, value in ((1, across.low), (2, across.high))
        for axis, one in (("x", across), ("y", up))
    ]
    dots = [f'<circle class="dot" cx="{across.place(x):.1f}" cy="{up.place(y):.1f}" r="3"/>' for x, y in points]
    above = sum(y > x for x, y in points)
    below = sum(y < x for x, y in points)
    alt = f"{y_title} against {x_title}, {len(points)} prompts: {above} higher, {below} lower."
    return _svg(alt, axes(across, up, x_title), [f'<line class="equal" {" ".join(ends)}/>', *dots])


def axes(across: Scale, up: Scale, x_title: str) -> list[str]:
    """Grid, ticks and the title of the horizontal axis."""
    parts = []
    for value in up.ticks:
        y = f"{up.place(value):.1f}"
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="tick end" x="{LEFT - 6}" y="{up.place(value) + 4:.1f}">{short(value)}</text>')
    for value in across.ticks:
        x = f"{across.place(value):.1f}"
        parts.append(f'<text class="tick middle" x="{x}" y="{HEIGHT - BOTTOM + 14}">{short(value)}</text>')
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM}"/>')
    parts.append(f'<text class="tick middle" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 4}">{escape(visible(x_title))}</text>')
    return parts


def short(value: float) -> str:
    """A number in few characters."""
    return "0" if abs(value) < 1e-12 else f"{value:.3g}"


def _svg(alt: str, *parts: Sequence[str]) -> Markup:
    inside = "".join(one for some in parts for one in some)
    label = escape(visible(alt))
    return Markup(f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{inside}</svg>')
