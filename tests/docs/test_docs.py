"""The docs name what exists: links, paths, commands, messages, and every file of the package."""

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from aligndistill.cli.app import app
from tests.docs.blocks import PAGES as ALL_PAGES
from tests.docs.blocks import ROOT

PACKAGE = ROOT / "aligndistill"
PAGES = [page for page in ALL_PAGES if page.name != "CHANGELOG.md"]
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))

TOP = ("aligndistill", "benchmarks", "configs", "data", "docs", "examples", "launch", "tests", "website")
PATH = re.compile(r"[\w.*-]+(?:/[\w.*-]+)*/?")
ANCHOR = re.compile(r"[^\w\- ]")


def code_spans(text: str) -> Iterator[str]:
    """What is between single backticks, outside of blocks."""
    without_blocks = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    yield from re.findall(r"(?<!`)`([^`\n]+)`(?!`)", without_blocks)


def anchors(page: Path) -> set[str]:
    """What a link may name behind `#`: the headings, as GitHub spells them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {ANCHOR.sub("", heading.lower()).replace(" ", "-") for heading in headings}


@pages
def test_links_lead_somewhere(page: Path) -> None:
    without_blocks = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", without_blocks):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{target} is not there"
        if anchor:
            assert anchor in anchors(linked), f"{linked.name} has no heading {anchor}"


def paths_in(page: Path) -> Iterator[str]:
    """Paths from the root of the repository or of the package."""
    packages = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    for span in code_spans(page.read_text()):
        top = span.partition("/")[0]
        if span.startswith(("runs/store", "runs/quickstart")):
            continue  # what a run writes
        if "/" not in span or not PATH.fullmatch(span) or re.search(r"[A-Z]{3,}\b", span.replace("README", "")):
            continue  # a command, a pattern such as `stages/NAME.py`, or no path at all
        if top in TOP or (top in packages and span.endswith((".py", ".txt", "/"))):
            yield span


@pages
def test_paths_exist(page: Path) -> None:
    places = (ROOT, PACKAGE)
    assert not [path for path in paths_in(page) if not any(any(place.glob(path.rstrip("/"))) for place in places)]


def subcommands() -> set[str]:
    """`run`, `judge audit` and so on."""
    found: set[str] = set()
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", {})
        found |= {name, *(f"{name} {one}" for one in inner)}
    return found


@pytest.mark.parametrize(
    "page",
    [*PAGES, *sorted(ROOT.glob("configs/**/*.yaml")), *sorted(ROOT.glob("examples/*.yaml")), ROOT / "Makefile"],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_commands_exist(page: Path) -> None:
    known = subcommands()
    text = page.read_text()
    spans = [*code_spans(text), *text.splitlines()] if page.suffix == ".md" else text.splitlines()
    for line in spans:
        for group, name in re.findall(r"(?:^|[ /`])aligndistill (judge )?([a-z][a-z-]+)\b(?![:/.=])", line):
            if "`" not in line and not line.lstrip(" #$").startswith(("aligndistill", ".venv", "deepspeed", "torchrun")):
                continue  # prose
            assert group + name in known, f"{page.name}: there is no command '{group}{name}'"


def texts_in_code() -> Iterator[list[str]]:
    """Every text in the package and the examples, cut where a value is filled in."""
    for folder in (PACKAGE, ROOT / "examples"):
        for path in folder.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    parts = (part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)
                    yield "".join(map(str, parts)).split("\0")
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield [node.value]


def is_in(quote: str, text: list[str]) -> bool:
    """Whether a message quotes this text: a piece of it, or at least ten characters around a value."""

    def overlap(before: str, after: str) -> int:
        start = max((n for n in range(len(quote)) if before.endswith(quote[:n])), default=0)
        end = max((n for n in range(len(quote) - start) if n and after.startswith(quote[-n:])), default=0)
        return start + end

    return any(quote in piece for piece in text) or any(overlap(*pair) >= 10 for pair in itertools.pairwise(text))


def messages_in_the_table() -> Iterator[str]:
    """What docs/running.md quotes under Troubleshooting, cut at `...`."""
    rows = re.findall(
        r"^\| (`.+?) \| ", (ROOT / "docs/running.md").read_text().partition("## Troubleshooting")[2], flags=re.MULTILINE
    )
    assert len(rows) > 30
    for row in rows:
        for double, single in re.findall(r"``(.+?)``|`([^`]+)`", row):
            yield from (piece.strip() for piece in (double or single).split("...") if len(piece.strip()) > 2)


def test_quoted_messages_are_those_of_the_code() -> None:
    texts = list(texts_in_code())
    whole = "\n".join(piece for text in texts for piece in text)  # most are in one piece, which is found at once
    others = [quote for quote in messages_in_the_table() if quote not in whole]
    assert not [quote for quote in others if not any(is_in(quote, text) for text in texts)]


def test_the_audits_labels_are_those_of_the_code() -> None:
    tree = ast.parse((PACKAGE / "reporting/audit_rows.py").read_text())
    yields = (node.value for node in ast.walk(tree) if isinstance(node, ast.Yield) and isinstance(node.value, ast.Tuple))
    labels = {label.value for row in yields if isinstance(label := row.elts[0], ast.Constant)} | {"kappa with the labels"}
    table = (ROOT / "docs/judges.md").read_text().partition("| metric | what it counts |")[2].partition("\n\n")[0]
    assert labels == {line.split(" | ")[0].lstrip("| ") for line in table.splitlines()[2:]}


def files_in_the_tree() -> set[str]:
    """The files that the tree in docs/architecture.md names, from the package on."""
    text = (ROOT / "docs/architecture.md").read_text()
    block = text.partition("```\naligndistill/\n")[2].partition("```")[0]
    found: set[str] = set()
    folders: list[str] = []
    for line in block.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        folders = folders[: depth - 1]
        found.add("/".join([*folders, name.rstrip("/")]) + ("/" if name.endswith("/") else ""))
        if name.endswith("/"):
            folders.append(name.rstrip("/"))
    return found


def test_the_tree_names_every_package_and_every_file_and_nothing_else() -> None:
    files = {
        path.relative_to(PACKAGE)
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and (path.name != "__init__.py" or path.read_text().strip())
    }
    folders = {parent for file in files for parent in file.parents if parent != Path(".")}
    expected = {path.as_posix() for path in files} | {f"{path.as_posix()}/" for path in folders}
    assert files_in_the_tree() == expected


def test_the_import_map_is_the_tested_one() -> None:
    from tests.test_architecture import BELOW_STAGES, MAY_IMPORT

    text = (ROOT / "docs/architecture.md").read_text().partition("| package | may import |")[2].partition("\n\n")[0]
    shown: dict[str, set[str]] = {}
    for line in text.splitlines()[2:]:
        packages, imports = (re.findall(r"`(\w+)`", cell) for cell in line.strip("|").split("|"))
        for package in packages:
            shown[package] = set(imports) - {"objectives"} if "nothing" in line else set(imports)
    shown["stages"] = BELOW_STAGES
    shown["commands"] = {*BELOW_STAGES, "pipeline", "runs", "stages"}
    assert shown == {name: imports for name, imports in MAY_IMPORT.items() if not name.startswith("__")}
