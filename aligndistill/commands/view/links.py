"""Addresses of pages: on the server, and as files of a static export."""

from dataclasses import dataclass
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

    def compare(self, runs: list[str]) -> str:
        """Several runs beside each other."""
        return "/c?" + "&".join(f"r={quote(one, safe='')}" for one in runs)


@dataclass(frozen=True)
class FileLinks(Links):
    """Addresses of files, relative to a page `depth` folders below the export; filtered views lead to the whole list."""

    depth: int = 0
    exported: frozenset[tuple[str, str]] = frozenset()
    """Run ids and prompt ids that have a page."""

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
        """See `Links`."""
        return f"{self._up}{quote(run.id, safe='')}/{name}.html"

    def sample(self, run: RunFolder, prompt: str, query: str = "") -> str:
        """See `Links`; the list of samples for a prompt that has no page."""
        return self.page(run, f"p/{prompt}" if (run.id, prompt) in self.exported else "samples")
