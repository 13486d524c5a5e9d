"""A comparison as a table, as Markdown and as JSON."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Literal

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from aligndistill.commands.compare.compare import SAME_ANSWERS, ComparedMeasure, RunComparison
from aligndistill.commands.output import print_json, print_table
from aligndistill.evaluation.intervals import Mean
from aligndistill.reporting.writing import duration, number

TITLES = {"truth": "truth", "win": "win rate", "kl": "KL", "length": "length", "reward": "reward"}
WITH_INTERVAL = ("truth", "win", "reward")
LEAVES_OUT = ("training", "reward", "length", "KL", "win rate")
TEXT_SHOWN = 200


def show(found: RunComparison, form: Literal["table", "md", "json"]) -> None:
    """Print a comparison."""
    match form:
        case "table":
            print_comparison(found)
        case "md":
            typer.echo("\n".join(markdown(found)))
        case "json":
            print_json("compare", as_values(found))


def print_comparison(found: RunComparison) -> None:
    """Print a comparison for a terminal: what cannot be compared, settings, a table for each run, prompts that got worse."""
    for line in heading(found):
        typer.echo(line)
    for other in range(1, len(found.runs)):
        typer.echo()
        print_table(table(found, other), LEAVES_OUT, "--json")
    for line in worse_lines(found):
        typer.echo(line)


def heading(found: RunComparison) -> Iterator[str]:
    """The runs, what cannot be compared, and the settings that differ."""
    yield f"base: {found.runs[0]}"
    for run, shared in zip(found.runs[1:], found.shared[1:], strict=True):
        yield f"other: {run}, {shared:,} of {found.shared[0]:,} evaluated prompts shared"
    for note in found.notes:
        yield f"note: {note}"
    for key, values in found.settings.items():
        yield f"differ: {key} {' -> '.join(map(_short, values))}"
    if not found.settings:
        yield "differ: no setting"


def table(found: RunComparison, other: int) -> Table:
    """Each model's value in the base, or in this run where it is compared, with the paired difference."""
    written = Table(title=Text(found.runs[other]), title_justify="left", caption_justify="left")
    written.box, written.padding, written.show_edge = SIMPLE_HEAD, (0, 1, 0, 0), False
    written.caption = Text(
        "difference from the base, paired over shared prompts [95%]; same: the same answers; KL, length: base -> this run"
    )
    for head, *_ in _columns(found, other):
        written.add_column(head, no_wrap=True)
    for row in zip(*(cells for _, *cells in _columns(found, other)), strict=True):
        written.add_row(*map(Text, row))
    return written


def markdown(found: RunComparison) -> Iterator[str]:
    """The same as Markdown, without a limit on the width."""
    yield from (f"- {line}" for line in heading(found))
    for other in range(1, len(found.runs)):
        columns = list(_columns(found, other))
        yield f"\n**{found.runs[other]}**\n"
        yield "| " + " | ".join(head for head, *_ in columns) + " |"
        yield "| " + " | ".join("---" for _ in columns) + " |"
        for row in zip(*(cells for _, *cells in columns), strict=True):
            yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
    yield from worse_lines(found)


def as_values(found: RunComparison) -> dict[str, Any]:
    """The comparison for JSON; intervals as mean, low, high and n."""
    values = asdict(found)
    values["models"] = {
        model: {
            measure: [{**asdict(one), "difference": one.difference.model_dump() if one.difference else None} for one in of_runs]
            for measure, of_runs in measures.items()
        }
        for model, measures in found.models.items()
    }
    return values


def worse_lines(found: RunComparison) -> Iterator[str]:
    """The prompts that got worse, with both answers."""
    if found.worse:
        model, measure = found.worse_of
        yield f"\n{model}: {TITLES[measure]} fell most on these prompts, base -> {found.runs[1]}"
    for place, one in enumerate(found.worse, 1):
        yield f"\n{place}. {number(one.before)} -> {number(one.after)}  {_short(one.text)}"
        for run, answer in zip(found.runs, one.answers, strict=False):
            yield f"   {run}: {_short(answer)}"


def _columns(found: RunComparison, other: int) -> Iterator[tuple[str, ...]]:
    """Each column's heading and cells."""
    yield "model", *found.models
    for measure in next(iter(found.models.values()), {}):
        of_models = [found.models[model][measure] for model in found.models]
        yield TITLES[measure], *(_cell(measure, of_runs[0], of_runs[other]) for of_runs in of_models)
    pairs = [(times[0], times[other]) for times in found.seconds.values()]
    if any(pair != (None, None) for pair in pairs):
        yield (
            "training",
            *(
                " -> ".join("none" if one is None else duration(one) for one in pair) if pair != (None, None) else ""
                for pair in pairs
            ),
        )


def _cell(measure: str, base: ComparedMeasure, other: ComparedMeasure) -> str:
    before, after = ("not measured" if one.value is None else number(one.value) for one in (base, other))
    if base.value is None and other.value is None:
        return ""
    if other.why:
        return f"{after}  same" if other.why == SAME_ANSWERS else f"{before} -> {after}  {other.why}"
    if measure in WITH_INTERVAL and other.difference is not None:
        return f"{after}  {signed(other.difference)}"
    return f"{before} -> {after}"


def signed(found: Mean) -> str:
    """`+0.03 [+0.01, +0.05]`."""
    return f"{found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"


def _short(text: str) -> str:
    """A text on one line."""
    line = " ".join(text.split())
    return line if len(line) <= TEXT_SHOWN else f"{line[: TEXT_SHOWN - 4]} ..."
