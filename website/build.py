"""Builds the documentation's site with Zensical, offline, and checks every link of it: `python -m website.build [FOLDER]`.

The pages are plain Markdown that GitHub shows as well. Zensical reads a copy in which links to files outside `docs/` lead to a page
of the site, or are plain text where there is none.
"""

import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).parents[1]

PAGES_OUTSIDE = {
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
    "launch/README.md": "project/launch.md",
    "data/README.md": "project/data.md",
    "benchmarks/results/frontier.md": "project/frontier.md",
    "benchmarks/results/memory.md": "project/memory.md",
}
"""Files of the repository that are pages of the site as well, and their places in it."""

ASSETS = (".png", ".svg")

LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
FENCE = re.compile(r"^ {0,3}(```|~~~)")
LIST_ITEM = re.compile(r"(?:[-*]|\d+\.) ")


def stage(target: Path) -> None:
    """Copy every page and picture of the site to a folder, with links that hold there."""
    files = {path.relative_to(ROOT).as_posix(): path for path in sorted((ROOT / "docs").rglob("*")) if path.is_file()}
    places = {name: name.removeprefix("docs/") for name in files if name.endswith((".md", *ASSETS))} | PAGES_OUTSIDE
    places |= {
        path.relative_to(ROOT).as_posix(): f"pictures/{path.name}" for path in sorted((ROOT / "benchmarks/results").glob("*.svg"))
    }
    for name, place in places.items():
        (target / place).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(ASSETS):
            shutil.copyfile(ROOT / name, target / place)
        else:
            text = (ROOT / name).read_text(encoding="utf-8")
            (target / place).write_text(staged(text, name, place, places), encoding="utf-8")


def staged(text: str, name: str, place: str, places: dict[str, str]) -> str:
    """A page's text as the site needs it.

    Args:
        name: its path in the repository.
        place: its path in the site's folder of pages.
        places: the same of every page and picture.
    """
    lines: list[str] = []
    fenced = False
    for line in text.splitlines():
        if FENCE.match(line):
            fenced = not fenced
        elif not fenced:
            line = LINK.sub(lambda link: _moved(link, name, place, places), line)
            if LIST_ITEM.match(line) and lines and re.match(r"[\w*`(\[\"]", lines[-1]) and not LIST_ITEM.match(lines[-1]):
                lines.append("")  # Markdown in Python needs it, GitHub's does not
        lines.append(line)
    return "\n".join(lines) + "\n"


def _moved(link: re.Match[str], name: str, place: str, places: dict[str, str]) -> str:
    """A link of a page, changed to where its target is in the site; its text alone if the site does not have the target."""
    picture, text, target = link.groups()
    path, _, anchor = target.partition("#")
    if "://" in target or target.startswith(("mailto:", "#")):
        return link.group()
    linked = (ROOT / name).parent.joinpath(path).resolve()
    known = places.get(linked.relative_to(ROOT).as_posix()) if linked.is_relative_to(ROOT) else None
    if known is None:
        return text
    upwards = "../" * place.count("/")
    return f"{picture}[{text}]({upwards}{known}{'#' + anchor if anchor else ''})"


class _Page(HTMLParser):
    """The ids and references of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect what a tag names."""
        given = {key: value for key, value in attrs if value is not None}
        self.ids |= {given[key] for key in ("id", "name") if key in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and given.get("rel") in ("stylesheet", "icon", "preload"):
            self.loaded.append(given.get("href", ""))
        elif tag in ("img", "script", "source", "iframe") and "src" in given:
            self.loaded.append(given["src"])


def problems(site: Path) -> Iterator[str]:
    """Every link of a built site that leads nowhere, and everything that a page would load from another host."""
    pages = {path: _parsed(path) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        here = path.relative_to(site)
        yield from (f"{here}: loads {one} from another host" for one in page.loaded if "//" in one)
        for link in [*page.links, *(one for one in page.loaded if "//" not in one)]:
            target, _, anchor = link.partition("#")
            if re.match(r"[a-z]+:", target) or path.name == "404.html":
                continue
            linked = (path.parent / unquote(target.partition("?")[0])).resolve() if target else path
            linked = linked / "index.html" if linked.is_dir() else linked
            if not linked.exists():
                yield f"{here}: {link} is not there"
            elif anchor and linked in pages and unquote(anchor) not in pages[linked].ids and anchor != "__top":
                yield f"{here}: {link} has no such heading"


def _parsed(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def build(target: Path) -> list[str]:
    """Build the site into a folder, which is replaced. Returns what is wrong with its links."""
    if importlib.util.find_spec("zensical") is None:
        raise SystemExit("Zensical is not installed. Install the extra `docs`: pip install -e '.[docs]'")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder).resolve()
        stage(work / "docs")
        shutil.copyfile(ROOT / "website/zensical.toml", work / "zensical.toml")
        command = [sys.executable, "-m", "zensical", "build", "--strict", "--config-file", "zensical.toml"]
        subprocess.run(command, cwd=work, check=True)
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(work / "site", target)
    return list(problems(target))


def main() -> None:
    """Build the site, and fail if a link is broken."""
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "site").resolve()
    found = build(target)
    for one in found:
        print(one, file=sys.stderr)
    if found:
        raise SystemExit(f"{len(found)} links of the site lead nowhere.")
    print(f"{len(list(target.rglob('*.html')))} pages, no broken link: {target / 'index.html'}")


if __name__ == "__main__":
    main()
