"""Training curves, students over each other, drawn by the server; and what a policy wrote at each update."""

import json
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from aligndistill.commands.view.pages.samples import prompt_text
from aligndistill.commands.view.rows import rows_of
from aligndistill.commands.view.run_folder import RunFolder
from aligndistill.commands.view.site import Page, Site
from aligndistill.commands.view.svg import lines
from aligndistill.stages.files import METRICS, SAMPLES

X_AXES = {"step": "step", "seconds": "seconds of training", "epoch": "epoch"}
LEFT_OUT = {"step", "epoch", "seconds", "update", "rollout_seconds", "scoring_seconds", "update_seconds"}
FIRST = (
    "loss",
    "score",
    "reward",
    "kl_k1_nats",
    "entropy_nats",
    "length_tokens",
    "clip_fraction",
    "held_out_win_rate",
    "learning_rate",
)
TITLES = {
    "grad_norm": "gradient norm",
    "learning_rate": "learning rate",
    "kl_k1_nats": "KL, nats per answer",
    "held_out_win_rate": "held-out win rate",
    "entropy_nats": "entropy, nats per token",
    "length_tokens": "length, tokens",
    "clip_fraction": "clip fraction",
    "explained_variance": "explained variance",
    "eos_rate": "share of answers that end by themselves",
    "kl_coefficient": "KL coefficient",
    "kl_k3_nats": "KL by the k3 estimator, nats per answer",
    "logps/chosen": "log-probability of chosen answers, nats",
    "logps/rejected": "log-probability of rejected answers, nats",
    "policy_loss": "policy loss",
    "value_loss": "value loss",
    "rank_loss": "ranking loss",
    "score_std": "standard deviation of the score",
    "sft_loss": "loss of the SFT term",
    "unscored": "answers without a score, share",
    "update_kl_nats": "KL of the update (k3), nats",
    "ratio_max": "largest probability ratio",
    "ratio_mean": "mean probability ratio",
    "rewards/accuracies": "implicit reward: pairs in order, share",
    "rewards/chosen": "implicit reward of chosen answers",
    "rewards/rejected": "implicit reward of rejected answers",
    "rewards/margins": "implicit reward: chosen minus rejected",
}
MOST_POINTS = 400
MOST_SAMPLES = 20

Log = list[dict[str, float]]


def curves_page(site: Site, run: RunFolder, values: Mapping[str, str]) -> Page:
    """The page."""
    logs = _logs(run)
    x = values.get("x", "step")
    x = x if x in X_AXES else "step"
    students = [name for name in logs if f"student-{name}" in run.folders]
    colours = {name: number for number, name in enumerate(dict.fromkeys([*students, *logs]))}  # as in the report
    metrics = {key for log in logs.values() for entry in log for key in entry} - LEFT_OUT
    panels = []
    for metric in sorted(metrics, key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name)):
        series = {name: _points(log, x, metric) for name, log in logs.items()}
        series = {name: points for name, points in series.items() if points}
        if series:
            panels.append(
                {
                    "title": TITLES.get(metric, metric),
                    "svg": lines(series, colours, TITLES.get(metric, metric), X_AXES[x]),
                    "series": {name: (colours[name], points) for name, points in series.items()},
                }
            )
    return Page(
        "curves.html",
        {"run": run, "panels": panels, "x": x, "x_axes": X_AXES, "colours": colours, "policies": _policies(run, values)},
    )


def _logs(run: RunFolder) -> dict[str, Log]:
    """The log of every stage that trains, by its name without `student-`."""
    found = {}
    for name, folder in run.folders.items():
        if (folder / METRICS).is_file():
            entries = [entry for _, _, entry in rows_of(folder / METRICS)]
            if entries:
                found[name.removeprefix("student-")] = entries
    return found


def _points(log: Log, x: str, metric: str) -> list[tuple[float, float]]:
    points = [
        (float(entry[x]), float(entry[metric])) for entry in log if _is_number(entry.get(x)) and _is_number(entry.get(metric))
    ]
    every = max(1, len(points) // MOST_POINTS)
    return points[::every]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _policies(run: RunFolder, values: Mapping[str, str]) -> list[dict[str, Any]]:
    """What each policy wrote at one of its updates: the one that the query names, else the last."""
    found = []
    for name, folder in run.folders.items():
        places = _updates(folder / SAMPLES) if name.startswith("student-") else {}
        if not places:
            continue
        student = name.removeprefix("student-")
        updates = sorted(places)
        wanted = values.get(f"u.{student}", "")
        place = int(wanted) if wanted.isdecimal() and wanted.isascii() and int(wanted) < len(updates) else len(updates) - 1
        rows = []
        with (folder / SAMPLES).open("rb") as file:
            for offset in places[updates[place]][:MOST_SAMPLES]:
                file.seek(offset)
                row = json.loads(file.readline())
                rows.append({**row, "prompt": prompt_text(row)})
        found.append({"student": student, "place": place, "at": updates[place], "updates": updates, "rows": rows})
    return found


def _updates(path: Path) -> dict[int, list[int]]:
    """Update -> offsets of its samples."""
    found: dict[int, list[int]] = {}
    for offset, _, row in rows_of(path):
        found.setdefault(int(row["update"]), []).append(offset)
    return found
