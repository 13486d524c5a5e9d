"""The last lines of `aligndistill run`: the result, what it cost, what to check, where the model is, how to load it, what next."""

import os
import textwrap
from collections.abc import Iterator
from pathlib import Path

from aligndistill.reporting.headline import short_result
from aligndistill.reporting.report import Report, leading_students
from aligndistill.reporting.writing import duration
from aligndistill.runs.results import Run
from aligndistill.runs.servers import spent_so_far
from aligndistill.store.artifacts import read_manifest

LONGEST_CHECK = 240
COPIED = ("load", "next")
"""Lines to copy, which are never broken."""


def last_lines(run: Run, seconds: float, width: int | None = None) -> Iterator[str]:
    """Six lines about a complete run, as aligned name and text.

    Args:
        seconds: how long this command took.
        width: of the terminal, characters; longer texts go on below their beginning. None: no line is broken.
    """
    for name, text in (
        ("result", short_result(run.report)),
        ("cost", _cost(run, seconds)),
        ("checks", _checks(run.report, run.folder)),
        *_model(run),
        ("next", f"aligndistill view {run.folder}"),
    ):
        line = f"{name:8} {text}"
        if width is None or name in COPIED:
            yield line
        else:
            yield textwrap.fill(line, width, subsequent_indent=9 * " ", break_long_words=False, break_on_hyphens=False)


def _cost(run: Run, seconds: float) -> str:
    manifests = [read_manifest(folder) for folder in dict.fromkeys(run.stages.values())]
    worked_seconds = sum(one.wall_seconds for one in manifests if one is not None)
    spent = spent_so_far(run.folder)
    requests, tokens, usd = (sum(getattr(one, name) for one in spent) for name in ("requests", "tokens", "usd"))
    price = f", {usd:.2f} USD" if usd else ""  # without a price, which `plan` asks for, USD are 0
    asked = f"{requests:,} requests, {tokens:,} tokens{price}" if requests else "no requests to servers"
    return f"{len(run.stages)} stages, {duration(worked_seconds)} (this command: {duration(seconds)}); {asked}"


def _checks(report: Report, folder: Path) -> str:
    """The first of what the page says to look at, and how much more there is."""
    page = folder / "report.html"
    found = [*report.warnings, *(one.text for one in report.checks)]
    if not found:
        return f"nothing to look at first; all figures: {page}"
    first, more = found[0], len(found) - 1
    if len(first) > LONGEST_CHECK:
        first = f"{first[:LONGEST_CHECK].rsplit(' ', 1)[0]} ..."
    also = f" And {more} more" if more else " All figures"
    return f"{len(found)} to look at: {first}{'' if first.endswith('.') else '.'}{also}: {page}"


def _model(run: Run) -> Iterator[tuple[str, str]]:
    """Where the leading student is, or the reward model, and how to load it."""
    name = next(iter(leading_students(run.report)), next(iter(run.students), None))
    if name is not None:
        yield "student", f"{name}: {_shown(run, name)}"
        yield "load", f"model, tokenizer = aligndistill.open_run({str(run.folder)!r}).students[{name!r}].load()"
    elif run.reward_model is not None:
        path = _relative(run.reward_model)
        yield "model", f"reward model: {path}"
        yield "load", f"AutoModelForSequenceClassification.from_pretrained({path!r})"
    else:
        yield "model", "nothing was trained"
        yield "load", f"aligndistill.open_run({str(run.folder)!r})"


def _shown(run: Run, name: str) -> str:
    link = run.folder / "students" / name
    return str(link) if link.exists() else _relative(run.students[name].path)


def _relative(path: Path) -> str:
    """A path below the working directory as a relative one."""
    return os.path.relpath(path) if path.absolute().is_relative_to(Path.cwd()) else str(path)
