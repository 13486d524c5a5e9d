"""Results as tables for `docs/performance.md`."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

MIB = 2**20
COLUMNS = (
    *("row", "against", "seconds here", "there", "times the speed", "MiB added here", "there", "times the memory"),
    *("equal work", "aim"),
)
TEXT_COLUMNS = {"row", "against", "equal work", "aim"}


def table(found: Mapping[str, Any]) -> str:
    """One line per row and peer, then what each row says."""
    machine = found["machine"]
    elsewhere, on_gpu = ([row for row in found["rows"].values() if bool(row.get("gpu")) == gpu] for gpu in (False, True))
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores{', ' + ', '.join(machine['gpus']) if machine['gpus'] else ''}.",
    ]
    if elsewhere:
        lines += ["", *_table(COLUMNS, elsewhere)]
    if on_gpu:
        columns = (*COLUMNS[:-2], "share of the matrix rate here", "there", *COLUMNS[-2:])
        lines += ["", "## On a GPU", "", *_table(columns, on_gpu)]
        rates = dict.fromkeys(_rate(row["matrix_rate"]) for row in on_gpu)
        lines += ["", f"Matrix rate, measured before each row: {'; '.join(rates)}."]
    notes = [f"- **{row['name']}**: {text}" for row in found["rows"].values() if (text := _note(row))]
    if any(row["quick"] for row in found["rows"].values()):
        notes.insert(0, "- Tiny sizes (`--quick`): the times and the memory mean nothing.")
    for name, curve in found.get("growth", {}).items():
        sizes = ", ".join(
            f"{point['size']:,}: {point['seconds']:.3g} s, {point['added_bytes'] / MIB:.0f} MiB" for point in curve["points"]
        )
        notes.append(f"- **{name}** ({curve['piece']}), {curve['axis']}: {sizes}.")
    return "\n".join([*lines, "", *notes, ""])


def _table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Markdown: a line per row and peer."""
    head = [f"| {' | '.join(columns)} |", f"| {' | '.join('---' if name in TEXT_COLUMNS else '--:' for name in columns)} |"]
    return head + [_line(row, label) for row in rows for label in row["sides"] if label != row["ours"]]


def _rate(rate: Mapping[str, Any]) -> str:
    return f"{rate['flops_per_second'] / 1e12:.3g} TFLOP/s ({rate['size']}^3, {rate['dtype']}, {rate['device']})"


def _line(row: Mapping[str, Any], label: str) -> str:
    ours, theirs = row["sides"][row["ours"]], row["sides"][label]
    speed = theirs["times_slower"]
    title = f"{row['title']} (`{row['name']}`)"
    if not row["timed"]:
        return f"| {title} | {label} | | | | | | | {_equal(theirs)} | |"
    cells = [
        title,
        label,
        f"{ours['seconds']:.3g} a {row['piece']}",
        f"{theirs['seconds']:.3g}",
        f"**{speed['median']:.2f}** ({speed['low']:.2f} to {speed['high']:.2f})",
        f"{ours['added_bytes'] / MIB:.0f}",
        f"{theirs['added_bytes'] / MIB:.0f}",
        f"{theirs['times_the_memory']:.2f}",
        *([f"{ours['share']:.1%}", f"{theirs['share']:.1%}"] if row.get("gpu") else []),
        _equal(theirs, row["tolerance"] if row.get("gpu") else None),
        row["aims"],
    ]
    return "| " + " | ".join(cells) + " |"


def _equal(side: Mapping[str, Any], tolerance: float | None = None) -> str:
    """What is found, and what would do where that is not the same for all rows."""
    if side["equal_work"] is None:
        return "see below"
    difference = side["curve_difference"]
    found = ("yes" if side["equal_work"] else "**no**") + ("" if difference is None else f", {difference:.0e}")
    return found + ("" if tolerance is None else f" (within {tolerance:.0e})")


def _note(row: Mapping[str, Any]) -> str:
    return " ".join(part for part in (row["says"], _reward(row)) if part)


def _reward(row: Mapping[str, Any]) -> str:
    """The reward reached by each side of an online row, and when each first had the score with which the peer ended."""
    rounds = row["rounds"]
    if "scores" not in rounds[row["ours"]][0] or not row["timed"]:
        return ""
    peer = next(label for label in rounds if label != row["ours"])
    reached = {label: fmean(fmean(one["scores"][-3:]) for one in rounds[label]) for label in rounds}
    first = {label: fmean(one["scores"][0] for one in rounds[label]) for label in rounds}
    said = []
    for label in rounds:
        seconds = [_seconds_to(one, reached[peer]) for one in rounds[label]]
        known = [one for one in seconds if one is not None]
        when = (
            f"reached {reached[peer]:.2f} after {fmean(known):.0f} s" if len(known) == len(seconds) else "did not always get there"
        )
        said.append(f"{label}: score {first[label]:.2f} -> {reached[label]:.2f} (last three updates), {when}")
    return "; ".join(said) + "."


def _seconds_to(one: Mapping[str, Any], score: float) -> float | None:
    return next((seconds for value, seconds in zip(one["scores"], one["elapsed"], strict=True) if value >= score), None)
