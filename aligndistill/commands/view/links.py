"""Addresses of pages: on the server, and as files of a static export."""

from collections.abc import Set
from dataclasses import dataclass, field
from urllib.parse import quote

from aligndistill.commands.view.run_folder import RunFolder


@dataclass(frozen=True)
class Links:
    """Addresses on the server. All are made here; routes take ids that are looked up, never paths."""

    static = False

    def home(self) -> str:
        """All runs."""
        return "/"

    def asset(self, name: str) -> str:
        """A file of the viewer."""
        return f"/static/{name}"

    def run(self, run: RunFolder) -> str:
        """A run."""
        return f"/r/{quote(run.id, safe='')}"

    def page(self, run: RunFolder, name: str, query: str = "") -> str:
        """A page of a run: samples, judge, curves, data, votes, vote."""
        return f"{self.run(run)}/{name}{'?' if query else ''}{query}"

    def sample(self, run: RunFolder, prompt: str, query: str = "") -> str:
        """A prompt with all that was written and judged about it."""
        return self.page(run, f"p/{prompt}", query)

    def has(self, run: RunFolder, prompt: str | None) -> bool:
        """Whether a prompt has a page."""
        return prompt is not None

    def compare(self, runs: list[str]) -> str:
        """Several runs beside each other."""
        return "/c?" + "&".join(f"r={quote(one, safe='')}" for one in runs)


@dataclass(frozen=True)
class FileLinks(Links):
    """Addresses of files, relative to a page `depth` folders below the export.

    Attributes:
        exported: run ids and prompt ids that have a page.
        lists: run ids and queries of the lists of samples that pages lead to, with the page of each; `page` adds to it.
    """

    depth: int = 0
    exported: Set[tuple[str, str]] = frozenset()
    lists: dict[tuple[str, str], str] = field(default_factory=dict)

    static = True

    @property
    def _up(self) -> str:
        return "../" * self.depth

    def home(self) -> str:
        """See `Links`."""
        return f"{self._up}index.html"

    def asset(self, name: str) -> str:
        """See `Links`."""
        return f"{self._up}{name}"

    def run(self, run: RunFolder) -> str:
        """See `Links`."""
        return f"{self._up}{quote(run.id, safe='')}/index.html"

    def page(self, run: RunFolder, name: str, query: str = "") -> str:
        """See `Links`; a list of samples for a query is a file of its own."""
        if name == "samples" and query:
            name = self.lists.setdefault((run.id, query), f"samples-{len(self.lists) + 1}")
        return f"{self._up}{quote(run.id, safe='')}/{name}.html"

    def sample(self, run: RunFolder, prompt: str, query: str = "") -> str:
        """See `Links`."""
        return self.page(run, f"p/{prompt}")

    def has(self, run: RunFolder, prompt: str | None) -> bool:
        """See `Links`."""
        return (run.id, prompt) in self.exported
