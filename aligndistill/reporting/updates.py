"""The course of on-policy training, update by update: curves, and samples of the policy's answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from aligndistill.reporting.drawing import INK, WIDTH, Plot, canvas, colour, svg_of
from aligndistill.reporting.writing import number

PANELS = {
    "score": "score",
    "kl_k1_nats": "KL, nats per answer",
    "held_out_win_rate": "held-out win rate",
    "entropy_nats": "entropy, nats per token",
    "length_tokens": "length, tokens",
    "kl_reverse_nats": "KL(student, teacher), nats per token",
    "kl_forward_nats": "KL(teacher, student), nats per token",
    "agreement": "likeliest token is the teacher's",
    "explained_variance": "explained variance",
    "clip_fraction": "clip fraction",
}
"""The metrics to draw, if they were logged, with their titles."""

SHOWN_UPDATES = 3


@dataclass(frozen=True)
class WrittenSample:
    """An answer that a policy wrote during training, with its score and log(policy / start) in nats, if it has them."""

    update: int
    prompt: str
    text: str
    score: float | None
    kl_nats: float | None
    length_tokens: int


@dataclass(frozen=True)
class Updates:
    """A student's log entries, one per update, and samples of its answers."""

    entries: Sequence[Mapping[str, float]]
    samples: Sequence[WrittenSample] = field(default_factory=tuple)


def updates_plot(entries: Sequence[Mapping[str, float]], series: int | None) -> Plot:
    """A panel for each logged metric, by update."""
    drawn = {name: title for name, title in PANELS.items() if any(name in entry for entry in entries)}
    rows = ceil(len(drawn) / 2)
    with canvas(WIDTH, 1.5 * rows + 0.3) as figure:
        panels: list[Axes] = list(figure.subplots(rows, 2, squeeze=False, sharex=True).flat)
        parts = []
        for axes, (name, title) in zip(panels, drawn.items(), strict=False):
            points = [(entry["update"], entry[name]) for entry in entries if name in entry]
            updates, values = zip(*points, strict=True)
            axes.plot(updates, values, color=colour(series), linewidth=1.5, marker="o" if len(points) < 4 else None)
            if name == "explained_variance":
                axes.axhline(0, color=INK, alpha=0.4, linewidth=1, linestyle=(0, (4, 3)))
            axes.set_title(title)
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(4))
            axes.grid()
            parts.append(f"{title} from {number(values[0])} to {number(values[-1])}")
        for axes in panels[len(drawn) :]:
            axes.set_axis_off()
        figure.supxlabel("update", fontsize="medium")
        return Plot(svg_of(figure), f"By update: {'; '.join(parts)}.")


def chosen_samples(samples: Sequence[WrittenSample]) -> list[WrittenSample]:
    """The samples of the first, the middle and the last update."""
    updates = sorted({sample.update for sample in samples})
    if not updates:
        return []
    shown = {updates[round(place * (len(updates) - 1) / (SHOWN_UPDATES - 1))] for place in range(SHOWN_UPDATES)}
    return [sample for sample in samples if sample.update in shown]
