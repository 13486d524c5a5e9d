"""What all pages share: the runs, their indexes, the templates and the addresses."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from aligndistill.commands.view.ballots import votes_for_filters
from aligndistill.commands.view.index import index_of
from aligndistill.commands.view.links import Links
from aligndistill.commands.view.query import Index, opened
from aligndistill.commands.view.run_folder import RunFolder
from aligndistill.commands.view.svg import short
from aligndistill.evaluation.intervals import Mean
from aligndistill.processes.screen import rough_duration
from aligndistill.reporting.texts import visible
from aligndistill.reporting.writing import number, with_interval
from aligndistill.runs.votes import read_votes


class UnknownPage(Exception):
    """There is no such run, prompt or page."""


@dataclass(frozen=True)
class Page:
    """A page to render: a template and its values."""

    template: str
    values: Mapping[str, Any]


@dataclass
class Site:
    """The runs that are shown.

    Attributes:
        voter: whose votes are taken.
        read_only: whether votes are refused.
    """

    runs: Mapping[str, RunFolder]
    voter: str = "voter"
    read_only: bool = False
    _locks: dict[str, threading.Lock] = field(default_factory=dict)

    def run(self, identity: str) -> RunFolder:
        """A run by its id.

        Raises:
            UnknownPage: there is none.
        """
        if identity not in self.runs:
            raise UnknownPage(f"There is no run '{identity}' here.")
        return self.runs[identity]

    @contextmanager
    def index(self, run: RunFolder) -> Iterator[Index]:
        """The index of a run as it is now; the first caller builds it, others wait."""
        with self._locks.setdefault(run.id, threading.Lock()):
            path = index_of(run)
        with opened(path) as index:
            index.votes = votes_for_filters(index, read_votes(run.path))
            yield index

    def build_indexes(self) -> None:
        """Build what is missing, newest run first."""
        for run in self.runs.values():
            with self.index(run):
                pass

    def render(self, page: Page, links: Links) -> str:
        """The HTML of a page."""
        values = {"run": None, "link": links, "site": self, "here": page.template.partition(".")[0], **page.values}
        return _environment().get_template(page.template).render(values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters |= {
        "short": short,
        "number": number,
        "duration": rough_duration,
        "when": when,
        "mean": with_interval,
        "signed": signed,
    }
    environment.tests["no_difference"] = is_none
    return environment


def _shown(value: Any) -> Any:
    """Every value that a template writes: texts with their invisible characters made visible, before they are escaped."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def when(seconds: float) -> str:
    """A Unix time in this machine's zone."""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M") if seconds else "unknown"


def signed(value: float) -> str:
    """A difference with its sign."""
    return f"{value:+z.2f}"


def is_none(difference: Mean) -> bool:
    """Whether a difference and its interval are zero to two decimals."""
    return all(abs(value) < 0.005 for value in (difference.low, difference.mean, difference.high))
