"""`python -m benchmarks.frontier`: the true reward that KL buys, by method, over seeds (the DPO paper's Figure 2, left)."""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import matplotlib

from benchmarks.environments import ROOT

matplotlib.use("svg")
from matplotlib import pyplot

RESULTS = ROOT / "benchmarks" / "results"
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Point:
    """One student of one seed: what it reached on held-out prompts, and how far from the start."""

    method: str
    student: str
    seed: int
    truth: float
    kl_nats: float


def points_of(report: Path) -> list[Point]:
    """The students of a finished run; a student's method is its name up to the first hyphen."""
    found = json.loads(report.read_text())
    start = [Point("start", "start", found["seed"], found["start"]["truth"]["mean"], 0.0)]
    return start + [
        Point(name.split("-")[0], name, found["seed"], student["truth"]["mean"], student["kl_nats"]["mean"])
        for name, student in found["students"].items()
    ]


def table(points: Sequence[Point]) -> str:
    """Means over seeds with the smallest and the greatest, and whether any student has more truth for no more KL."""
    names = list(dict.fromkeys(point.student for point in points))
    of = {name: [point for point in points if point.student == name] for name in names}
    means = {name: (fmean(p.truth for p in of[name]), fmean(p.kl_nats for p in of[name])) for name in names}
    lines = ["| student | truth | KL, nats | beaten by |", "|---|---|---|---|"]
    for name in names:
        truth, kl = means[name]
        better = [other for other in names if means[other][0] > truth and means[other][1] <= kl]
        best = max(better, key=lambda other: means[other][0], default="-")
        lines.append(f"| {name} | {_spread([p.truth for p in of[name]])} | {_spread([p.kl_nats for p in of[name]])} | {best} |")
    return "\n".join(lines) + "\n"


def plot(points: Sequence[Point], path: Path) -> None:
    """Every student of every seed, a colour for each method, and a line through each method's means in order of KL."""
    figure, panel = pyplot.subplots(figsize=(7, 4.5))
    methods = list(dict.fromkeys(point.method for point in points))
    for method, color in zip(methods, matplotlib.colormaps["tab10"].colors, strict=False):
        mine = [point for point in points if point.method == method]
        panel.scatter([p.kl_nats for p in mine], [p.truth for p in mine], s=14, color=color, alpha=0.45)
        students = dict.fromkeys(p.student for p in mine)
        means = sorted(
            (fmean(p.kl_nats for p in mine if p.student == name), fmean(p.truth for p in mine if p.student == name))
            for name in students
        )
        panel.plot([kl for kl, _ in means], [truth for _, truth in means], marker="o", color=color, label=method)
    panel.set(xlabel="KL(student || start), nats per response", ylabel="true reward, held-out prompts")
    panel.legend()
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)


def _spread(values: Iterable[float]) -> str:
    values = list(values)
    return f"{fmean(values):.3f} [{min(values):.3f}, {max(values):.3f}]"


def finished_run(config: str, name: str, seed: int, *overrides: str) -> Path:
    """Run a config with a seed; the run's folder."""
    command = ["run", config, f"seed={seed}", f"name={name}-{seed}", *overrides]
    subprocess.run([sys.executable, "-m", "aligndistill", *command], cwd=ROOT, check=True)
    return ROOT / "runs" / f"{name}-{seed}"


def write(points: Sequence[Point], path: Path, more: str = "") -> None:
    """Write the points as JSON, as a table with more text below it, and as a plot, and print the table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").write_text(json.dumps([asdict(point) for point in points], indent=1) + "\n")
    text = table(points) + more
    path.with_suffix(".md").write_text(text)
    plot(points, path.with_suffix(".svg"))
    print(text)
    print(f"written to {path}.json, .md and .svg")


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.frontier", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for frontier.json, .md and .svg")
    arguments = parser.parse_args()
    runs = [finished_run("configs/frontier.yaml", "frontier", seed) for seed in arguments.seeds]
    write([point for run in runs for point in points_of(run / "report.json")], arguments.results / "frontier")


if __name__ == "__main__":
    main()
