"""How cost grows with the size of the work: seconds and memory against k, prompt length and the number of records."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib

from benchmarks.measure import WORK, Row, Side, Worker, new_folder
from benchmarks.worlds import Rows, Shape, write_language_model

matplotlib.use("svg")
from matplotlib import pyplot

MIB = 2**20


@dataclass(frozen=True)
class Curve:
    """Sizes, and what is done at each.

    Attributes:
        row: the work at a size; only its own side is run.
        piece: what the seconds are of.
    """

    name: str
    axis: str
    sizes: tuple[int, ...]
    row: Callable[[int], Row]
    piece: str


def all_curves(quick: bool) -> dict[str, Curve]:
    """Curves by name."""
    curves = (
        Curve(
            "growth-k",
            "responses per prompt (k)",
            (2, 4, 8, 16),
            partial(_rrhf_k, quick=quick),
            "RRHF step, 1 prompt, 256/64 tokens",
        ),
        Curve(
            "growth-prompt",
            "prompt, tokens",
            (64, 128) if quick else (64, 256, 1024, 4096),
            partial(_rrhf_prompt, quick=quick),
            "RRHF step, 1 prompt, k = 4, 64 tokens each",
        ),
        Curve(
            "growth-records",
            "records",
            (100, 1_000) if quick else (1_000, 10_000, 30_000, 100_000),
            _records,
            "prompts and rankings, made and found again in the store",
        ),
    )
    return {curve.name: curve for curve in curves}


def run_curve(curve: Curve, threads: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure every size in a process of its own, so that each begins with fresh memory."""
    points = []
    for size in curve.sizes:
        row = curve.row(size)
        folder = new_folder(WORK / f"{curve.name}-{size}")
        row.make_world(folder)
        worker = Worker(row.ours, row, folder, threads)
        try:
            worker.ready()
            found = worker.round(0)
        finally:
            worker.end()
        points.append({"size": size, "seconds": median(found["seconds"]), "added_bytes": found["added_bytes"]})
        say(f"  {curve.name} {size:,}: {points[-1]['seconds']:.3f} s, {points[-1]['added_bytes'] / MIB:.0f} MiB added")
    return {"axis": curve.axis, "piece": curve.piece, "points": points}


def plot(found: Mapping[str, Any], path: Path) -> None:
    """Seconds and memory against the size, both axes logarithmic, with what linear growth from the first point would be."""
    sizes = [point["size"] for point in found["points"]]
    figure, panels = pyplot.subplots(1, 2, figsize=(8, 3))
    series = {"seconds": [p["seconds"] for p in found["points"]], "MiB added": [p["added_bytes"] / MIB for p in found["points"]]}
    for panel, (label, values) in zip(panels, series.items(), strict=True):
        panel.plot(sizes, values, marker="o")
        panel.plot(sizes, [values[0] * size / sizes[0] for size in sizes], linestyle=":", color="grey", label="linear")
        panel.set(xscale="log", yscale="log", xlabel=found["axis"], ylabel=label)
        panel.legend()
    figure.suptitle(found["piece"])
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)


def _rrhf_k(k: int, quick: bool) -> Row:
    return _rrhf(256, k, quick)


def _rrhf_prompt(prompt: int, quick: bool) -> Row:
    return _rrhf(prompt, 4, quick)


def _rrhf(prompt: int, k: int, quick: bool) -> Row:
    shape = Shape(512, hidden=32, layers=2) if quick else Shape(2_048)
    steps = 3 if quick else 7

    def make_world(folder: Path) -> None:
        write_language_model(folder / "policy", shape)
        Rows(steps, prompt, 64, k, shape.vocabulary).write(folder / "rows.jsonl")

    return Row(
        name="growth",
        title="",
        make_world=make_world,
        ours=Side("aligndistill", "ours", "ours_offline:policy"),
        peers=(),
        settings={"batch": 1, "objective": "rrhf", "steps": steps, "warm_up": 2, "learning_rate": 1e-4},
    )


def _records(count: int) -> Row:
    def make_world(folder: Path) -> None:
        with (folder / "rankings.jsonl").open("w") as file:
            for number in range(count):
                responses = [f"Answer {place} to question {number}: " + "so it is. " * (20 + place) for place in range(4)]
                prompt = f"Question {number}: " + "what is it about? " * 10
                file.write(json.dumps({"prompt": prompt, "responses": responses, "scores": [2.0, 1.0, 0.5, 0.0]}) + "\n")

    return Row(
        name="growth-records",
        title="",
        make_world=make_world,
        ours=Side("aligndistill", "ours", "ours_records:through_the_store"),
        peers=(),
        settings={"records": count},
    )
