"""Drawing plots: style, colours, labels that do not overlap, and SVG for an HTML page.

Text and axes take the colour of the page's text (`currentColor`), series its CSS variables `--series-1` ..., so a drawing is
readable in light and dark mode; the light page's colours are the fallback. They follow Okabe and Ito (2008), for colour-blind
readers, darkened to a contrast of 3 on white; text is never in them. Shapes and labels distinguish series too. Styles are
attributes of elements, so that a page can forbid inline styles.
"""

import hashlib
import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from aligndistill.reporting.marks import SERIES, shape_of

INK = "#010203"  # becomes currentColor; matplotlib omits black from the SVG
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
FONT_POINTS = 10
WIDTH = 5.2  # inches; one width for all, so that text is of one size in the page

_STYLE = {
    "axes.edgecolor": INK,
    "axes.facecolor": "none",
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": FONT_POINTS,
    "figure.facecolor": "none",
    "figure.constrained_layout.use": True,
    "font.size": FONT_POINTS,
    "grid.alpha": 0.12,
    "grid.color": INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "aligndistill",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": INK,
    "ytick.color": INK,
}
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
_CSS_COLOURS = {INK: "currentColor"} | {colour: f"var(--series-{index + 1}, {colour})" for index, colour in enumerate(SERIES)}


@dataclass(frozen=True)
class Plot:
    """A drawing as SVG, with a text alternative."""

    svg: str
    alt: str


def colour(series: int | None) -> str:
    """The colour of a series; after seven they repeat, with other shapes. None is the colour of text."""
    return INK if series is None else SERIES[series % len(SERIES)]


def marker(series: int | None) -> str:
    """The shape of a series."""
    return "*" if series is None else MARKERS[shape_of(series)]


@contextmanager
def canvas(width: float, height: float) -> Iterator[Figure]:
    """A figure, inches, to draw on; the style is active until the end of the block. Without pyplot, so no global state
    or display.
    """
    with matplotlib.style.context(["default", _STYLE]):
        figure = Figure(figsize=(width, height))
        FigureCanvasSVG(figure)
        yield figure


def svg_of(figure: Figure) -> str:
    """The figure as an `<svg>` element for an HTML page: without prolog, size and font, and with unique ids."""
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # The reader's browser has the glyphs; matplotlib's own font only measures.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        FigureCanvasSVG(figure).print_svg(buffer, metadata=_NO_METADATA)  # not `savefig`, which draws everything twice for a layout
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg ") :]
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r"<svg .*?(viewBox=\"[^\"]*\").*?>", r"<svg \1>", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r"<g id=\"[^\"]*\"", "<g", svg)
    own = hashlib.sha256(svg.encode()).hexdigest()[:8]
    svg = re.sub(r"(\bid=\"|url\(#|xlink:href=\"#)", rf"\g<1>{own}-", svg)
    return re.sub(r"style=\"([^\"]*)\"", _as_attributes, svg)


def _as_attributes(style: re.Match[str]) -> str:
    """An inline style as attributes, in the page's colours and font."""
    named = (declaration.split(":", 1) for declaration in style[1].split(";") if declaration.strip())
    values = {name.strip(): value.strip() for name, value in named}
    kept = ((name, _CSS_COLOURS.get(value, value)) for name, value in values.items() if name != "font-family")
    return " ".join(f'{name}="{value}"' for name, value in kept)


@dataclass(frozen=True)
class Label:
    """A text to place beside a point, in data coordinates."""

    text: str
    x: float
    y: float


@dataclass(frozen=True)
class Segment:
    """A straight line that labels should not overlap, in data coordinates."""

    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True)
class _Box:
    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: "_Box") -> float:
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(0.0, width) * max(0.0, height)


_PLACES = ((8, 7), (8, -9), (-8, 7), (-8, -9), (0, 13), (0, -14), (8, 20), (8, -22), (-8, 20), (-8, -22))


def place_labels(figure: Figure, axes: Axes, labels: Sequence[Label], bars: Sequence[Segment]) -> None:
    """Write each label beside its point, where it covers points, bars and earlier labels least. Axis limits must be set."""
    # adjustText 1.4 was tried instead: it leaves short labels on their markers, and moves others to their neighbours' markers.
    figure.draw_without_rendering()  # the layout decides where points are
    points_per_pixel = 72 / figure.dpi

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = axes.transData.transform((x, y)) * points_per_pixel
        return float(across), float(up)

    frame = axes.get_window_extent()
    inside = _Box(*(value * points_per_pixel for value in (frame.x0, frame.y0, frame.x1, frame.y1)))
    centres = [place(label.x, label.y) for label in labels]
    taken = [_Box(x - 5, y - 5, x + 5, y + 5) for x, y in centres]
    for bar in bars:
        (left, bottom), (right, top) = place(bar.x0, bar.y0), place(bar.x1, bar.y1)
        taken.append(_Box(left - 1, bottom - 1, right + 1, top + 1))
    for label, (x, y) in zip(labels, centres, strict=True):
        width, height = 0.6 * FONT_POINTS * len(label.text), 1.2 * FONT_POINTS
        best: tuple[float, _Box, tuple[int, int]] | None = None
        for dx, dy in _PLACES:
            left = x + dx - (0 if dx > 0 else width if dx < 0 else width / 2)
            box = _Box(left, y + dy - height / 2, left + width, y + dy + height / 2)
            cost = sum(box.overlap(other) for other in taken) + width * height - box.overlap(inside)
            if best is None or cost < best[0]:
                best = (cost, box, (dx, dy))
        assert best is not None
        taken.append(best[1])
        dx, dy = best[2]
        axes.annotate(
            label.text,
            (label.x, label.y),
            (dx, dy),
            textcoords="offset points",
            ha="left" if dx > 0 else "right" if dx < 0 else "center",
            va="center",
            weight="bold",
        )
