"""The site: every page has a place on its map, links hold where the pages are moved to, and the generated pages are current."""

import importlib.util
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from website.build import PAGES_OUTSIDE, build, problems, stage, staged
from website.reference import COMPLETED_KEYS, FOLDER, PAGES, keys_for_completion, undocumented

ROOT = Path(__file__).parents[2]


def pages_of(entry: Any) -> Iterator[str]:
    """The pages of a part of the map."""
    if isinstance(entry, str):
        yield entry
    else:
        for inner in entry.values() if isinstance(entry, dict) else entry:
            yield from pages_of(inner)


def test_every_page_is_on_the_map_once() -> None:
    on_the_map = list(pages_of(tomllib.loads((ROOT / "website/zensical.toml").read_text())["project"]["nav"]))
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    assert sorted(on_the_map) == sorted([*pages, *PAGES_OUTSIDE.values()])


@pytest.mark.parametrize("name", PAGES)
def test_generated_pages_are_current(name: str) -> None:
    assert (FOLDER / name).read_text() == PAGES[name](), "run `python -m website.reference`"


def test_the_keys_that_a_shell_completes_are_current() -> None:
    assert COMPLETED_KEYS.read_text() == keys_for_completion(), "run `python -m website.reference`"


def test_every_key_of_the_config_is_explained() -> None:
    assert undocumented() == []


def test_links_of_moved_pages() -> None:
    places = {"docs/running.md": "running.md", "launch/README.md": "project/launch.md"}
    text = "[a](../docs/running.md#resume) [b](hostfile.example) [c](#here) [d](https://x.org/)\n```\n[e](hostfile.example)\n```\n"
    moved = staged(text, "launch/README.md", "project/launch.md", places)
    assert moved == "[a](../running.md#resume) b [c](#here) [d](https://x.org/)\n```\n[e](hostfile.example)\n```\n"


def test_a_list_behind_a_paragraph_gets_its_blank_line() -> None:
    assert staged("Text:\n- one\n  more\n- two\n", "docs/a.md", "a.md", {}) == "Text:\n\n- one\n  more\n- two\n"


def test_broken_links_and_foreign_files_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<h1 id="x">A</h1><a href="b.html#y">b</a><a href="b.html#z">b</a><a href="c.html">c</a><a href="#x">x</a>'
        '<a href="https://example.org/no">far</a><script src="https://example.org/s.js"></script><img src="p.png">'
    )
    (tmp_path / "b.html").write_text('<h1 id="y">B</h1>')
    assert list(problems(tmp_path)) == [
        "a.html: loads https://example.org/s.js from another host",
        "a.html: b.html#z has no such heading",
        "a.html: c.html is not there",
        "a.html: p.png is not there",
    ]


def test_pages_are_copied_whole(tmp_path: Path) -> None:
    stage(tmp_path)
    assert all((tmp_path / place).exists() for place in PAGES_OUTSIDE.values())
    assert (tmp_path / "project/launch.md").read_text().count("## ") == (ROOT / "launch/README.md").read_text().count("## ")


@pytest.mark.process
@pytest.mark.skipif(importlib.util.find_spec("zensical") is None, reason="the extra `docs` is not installed")
def test_the_site_has_no_broken_link(tmp_path: Path) -> None:
    assert build(tmp_path / "site") == []
