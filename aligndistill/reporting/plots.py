"""The page's plots: from numbers to SVG and a description, with identical bytes each time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import fmean, median

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from aligndistill.evaluation.intervals import Mean
from aligndistill.evaluation.preference_metrics import LengthGapBin, ReliabilityBin
from aligndistill.reporting.drawing import INK, WIDTH, Label, Plot, Segment, canvas, colour, marker, place_labels, svg_of
from aligndistill.reporting.marks import SERIES
from aligndistill.reporting.writing import number, shortened, with_interval

_CURVE_POINTS = 200
_NAME = 24  # the most characters of a name in a plot


@dataclass(frozen=True)
class DriftPoint:
    """A student: how far it went, and its gain. `series` decides colour and shape."""

    name: str
    series: int | None
    distance: Mean
    gain: Mean


FROM_START = "KL from the start, nats per response"


def drift_plot(
    points: Sequence[DriftPoint], gain_label: str, levels: Mapping[str, float], distance_label: str = FROM_START
) -> Plot:
    """The gain of students against a distance, by default KL(student || start), with both intervals.

    Args:
        points: the students.
        gain_label: the name of the gain.
        levels: name to gain of models without KL (the start, the teacher, a coin), drawn as lines.
    """
    with canvas(WIDTH, 3.8) as figure:
        axes = figure.subplots()
        for point in points:
            axes.errorbar(
                point.distance.mean,
                point.gain.mean,
                xerr=[[point.distance.mean - point.distance.low], [point.distance.high - point.distance.mean]],
                yerr=[[point.gain.mean - point.gain.low], [point.gain.high - point.gain.mean]],
                fmt=marker(point.series),
                color=colour(point.series),
                markersize=7,
                ecolor=(colour(point.series), 0.5),
                elinewidth=1.5,
            )
        for level in levels.values():
            axes.axhline(level, color=INK, alpha=0.55, linewidth=1, linestyle=(0, (4, 3)))
        axes.set_xlim(left=min(0.0, axes.get_xlim()[0]), right=axes.get_xlim()[1] * 1.12)
        bottom, top = axes.get_ylim()
        axes.set_ylim(bottom - 0.06 * (top - bottom), top + 0.06 * (top - bottom))
        for name, level in levels.items():
            axes.annotate(name, (1, level), (-2, 3), xycoords=("axes fraction", "data"), textcoords="offset points", ha="right")
        axes.set_xlabel(distance_label)
        axes.set_ylabel(gain_label)
        axes.grid()
        place_labels(figure, axes, [_label(point) for point in points], [bar for point in points for bar in _bars(point)])
        parts = [f"{point.name} {with_interval(point.gain)} at {with_interval(point.distance)}" for point in points]
        parts += [f"{name} {number(level)}" for name, level in levels.items()]
        return Plot(svg_of(figure), f"{gain_label} against {distance_label}: {'; '.join(parts)}.")


def reliability_plot(bins: Sequence[ReliabilityBin]) -> Plot:
    """Accuracy against confidence, bin by bin, over the number of pairs in each; calibrated points lie on the diagonal."""
    with canvas(WIDTH, 4.2) as figure:
        axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
        axes.plot([0.5, 1], [0.5, 1], color=INK, alpha=0.55, linewidth=1, linestyle=(0, (4, 3)))
        axes.plot([bin.confidence for bin in bins], [bin.accuracy for bin in bins], color=SERIES[0], marker="o", markersize=6)
        axes.set_ylabel("share that is right")
        axes.set_xlim(0.49, 1.01)
        axes.set_ylim(min([0.45, *(bin.accuracy - 0.05 for bin in bins)]), 1.03)
        axes.grid()
        counts.bar(
            [bin.low for bin in bins],
            [bin.count for bin in bins],
            width=[0.94 * (bin.high - bin.low) for bin in bins],
            align="edge",
            color=SERIES[0],
            alpha=0.6,
        )
        counts.set_ylabel("pairs")
        counts.yaxis.set_major_locator(MaxNLocator(2, integer=True))
        counts.set_xlabel("probability given to the preferred answer")
        parts = [f"{bin.accuracy:.2f} right at confidence {bin.confidence:.2f} ({bin.count} pairs)" for bin in bins]
        return Plot(svg_of(figure), f"Reliability of the reward model: {'; '.join(parts)}.")


def length_gap_plot(bins: Sequence[LengthGapBin]) -> Plot:
    """Accuracy of pairs by how much longer the chosen answer is; a model that follows length rises from left to right."""
    with canvas(WIDTH, 4.2) as figure:
        axes = figure.subplots()
        names = [_gap_name(bin) for bin in bins]
        axes.bar(range(len(bins)), [bin.accuracy for bin in bins], width=0.72, color=SERIES[0])
        axes.axhline(0.5, color=INK, alpha=0.7, linewidth=1, linestyle=(0, (4, 3)))
        for index, bin in enumerate(bins):
            axes.annotate(
                f"{bin.accuracy:.2f}\nn={bin.count}", (index, bin.accuracy), (0, 3), textcoords="offset points", ha="center"
            )
        axes.set_xticks(range(len(bins)), names)
        axes.set_ylim(0, 1.25)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
        axes.set_xlabel("length difference, chosen minus rejected (tokens)")
        axes.set_ylabel("accuracy")
        parts = [f"{bin.accuracy:.2f} at {name} tokens ({bin.count} pairs)" for bin, name in zip(bins, names, strict=True)]
        return Plot(svg_of(figure), f"Accuracy of the reward model by length gap: {'; '.join(parts)}.")


def curves_plot(curves: Mapping[str, Sequence[tuple[int, float]]], series: Mapping[str, int | None]) -> Plot:
    """Training loss by step, a panel for each student: losses of different objectives have different scales."""
    columns = min(2, len(curves))
    rows = ceil(len(curves) / columns)
    with canvas(WIDTH, 1.7 * rows + 0.3) as figure:
        panels: list[Axes] = list(figure.subplots(rows, columns, squeeze=False).flat)
        for axes, (name, points) in zip(panels, curves.items(), strict=False):
            thinned = _thinned(points)
            steps, losses = [point[0] for point in thinned], [point[1] for point in thinned]
            axes.plot(steps, losses, color=colour(series[name]), linewidth=1.5, marker="o" if len(steps) == 1 else None)
            axes.set_title(shortened(name, _NAME), weight="bold")
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(4))
            axes.grid()
        for axes in panels[len(curves) :]:
            axes.set_axis_off()
        figure.supxlabel("optimiser step", fontsize="medium")
        figure.supylabel("loss", fontsize="medium")
        parts = [
            f"{name} from {number(points[0][1])} to {number(points[-1][1])} in {points[-1][0]} steps"
            for name, points in curves.items()
        ]
        return Plot(svg_of(figure), f"Training loss: {'; '.join(parts)}.")


def lengths_plot(lengths: Mapping[str, Sequence[int]], series: Mapping[str, int | None]) -> Plot:
    """Histograms of answer lengths, a row for each author on one scale, the median marked."""
    longest = max(max(tokens) for tokens in lengths.values())
    width = max(1, ceil((longest + 1) / 40))
    edges = [start - 0.5 for start in range(0, longest + width + 1, width)]
    with canvas(WIDTH, 0.5 * len(lengths) + 0.7) as figure:
        rows: list[Axes] = list(figure.subplots(len(lengths), 1, sharex=True, squeeze=False).flat)
        for axes, (name, tokens) in zip(rows, lengths.items(), strict=True):
            shade = colour(series[name])
            hollow = name == "teacher"  # as its mark is
            heights = axes.hist(tokens, bins=edges, color=shade, alpha=0.75, histtype="step" if hollow else "stepfilled")[0]
            axes.axvline(median(tokens), color=INK, linewidth=1.2)
            axes.set_ylim(0, 1.15 * float(np.max(heights)))
            axes.set_yticks([])
            axes.spines["left"].set_visible(False)
            axes.set_ylabel(shortened(name, 18), rotation=0, ha="right", va="center", weight="bold")
            axes.annotate(f"median {median(tokens):g}", (1, 0.7), xycoords="axes fraction", ha="right", va="center")
        rows[-1].set_xlim(0, edges[-1] * 1.15)
        rows[-1].set_xlabel("length of an answer, tokens")
        parts = [f"{name}: median {median(tokens):g}, longest {max(tokens)}" for name, tokens in lengths.items()]
        return Plot(svg_of(figure), f"Answer lengths in tokens. {'; '.join(parts)}.")


def rounds_plot(quantities: Mapping[str, Mapping[str, Mean]]) -> Plot:
    """Quantities over the rounds, a panel for each, with intervals.

    Args:
        quantities: of each quantity by name, its value in each round by the round's number.
    """
    with canvas(WIDTH, 2.4) as figure:
        panels: list[Axes] = list(figure.subplots(1, len(quantities), squeeze=False).flat)
        for axes, (name, values) in zip(panels, quantities.items(), strict=True):
            below = [value.mean - value.low for value in values.values()]
            above = [value.high - value.mean for value in values.values()]
            means = [value.mean for value in values.values()]
            axes.errorbar(list(values), means, yerr=[below, above], color=SERIES[0], marker="o", linewidth=1.5, capsize=3)
            axes.margins(x=0.2)
            axes.set_title(name)
            axes.yaxis.set_major_locator(MaxNLocator(4))
            axes.grid()
        figure.supxlabel("round", fontsize="medium")
        parts = [
            f"{name} {', '.join(f'{with_interval(value)} in round {one}' for one, value in values.items())}"
            for name, values in quantities.items()
        ]
        return Plot(svg_of(figure), f"Over the rounds: {'; '.join(parts)}.")


def _label(point: DriftPoint) -> Label:
    return Label(shortened(point.name, _NAME), point.distance.mean, point.gain.mean)


def _bars(point: DriftPoint) -> tuple[Segment, Segment]:
    return (
        Segment(point.distance.low, point.gain.mean, point.distance.high, point.gain.mean),
        Segment(point.distance.mean, point.gain.low, point.distance.mean, point.gain.high),
    )


def _gap_name(bin: LengthGapBin) -> str:
    if bin.low is None:
        return "all" if bin.high is None else f"< {bin.high:g}"
    return f"≥ {bin.low:g}" if bin.high is None else f"{bin.low:g} to\n< {bin.high:g}"


def _thinned(points: Sequence[tuple[int, float]]) -> list[tuple[float, float]]:
    """At most `_CURVE_POINTS` points, each the mean of the same number of neighbours."""
    size = ceil(len(points) / _CURVE_POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(fmean(step for step, _ in group), fmean(loss for _, loss in group)) for group in groups]
