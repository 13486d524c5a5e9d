"""The pages as files, without script: they open from a folder or any host."""

import shutil
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qsl

from aligndistill.commands.view.links import FileLinks
from aligndistill.commands.view.pages.curves import curves_page
from aligndistill.commands.view.pages.data import data_page
from aligndistill.commands.view.pages.judge import judge_page
from aligndistill.commands.view.pages.runs import run_page, runs_page
from aligndistill.commands.view.pages.sample import sample_page
from aligndistill.commands.view.pages.samples import samples_page
from aligndistill.commands.view.pages.votes import votes_page
from aligndistill.commands.view.server import STATIC
from aligndistill.commands.view.site import Page, Site
from aligndistill.errors import DataError

MOST_ROWS = 500
MOST_ROWS_OF_A_QUERY = 100


def export_site(site: Site, folder: Path) -> int:
    """Write every page, with the first 500 samples of each run and the first 100 of each list that a page leads to, and remove
    pages of an earlier export; returns the number of pages.

    Raises:
        DataError: the folder has other content, or cannot be written.
    """
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "view.css").is_file():
        raise DataError(f"--export {folder}: the folder is not empty and has no earlier export. Give another folder.")
    try:
        return _export(site, folder)
    except OSError as error:
        raise DataError(f"--export {folder}: cannot write ({error.strerror}).") from None


def _export(site: Site, folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("view.css", "icon.svg"):
        shutil.copyfile(STATIC / name, folder / name)
    links = FileLinks()
    shown: set[tuple[str, str]] = set()
    written: set[Path] = set()

    def write(name: str, page: Page) -> None:
        here = replace(links, depth=name.count("/"), exported=shown)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(site.render(page, here).encode("utf-8", "replace"))
        written.add(path)

    write("index.html", runs_page(site))
    for run in site.runs.values():
        write(f"{run.id}/index.html", run_page(site, run))
        write(f"{run.id}/judge.html", judge_page(site, run))
        write(f"{run.id}/curves.html", curves_page(site, run, {}))
        write(f"{run.id}/votes.html", votes_page(site, run))
        lists = {"samples": samples_page(site, run, {}, rows=MOST_ROWS)}
        for (identity, query), name in links.lists.items():
            if identity == run.id:
                lists[name] = samples_page(site, run, dict(parse_qsl(query)), rows=MOST_ROWS_OF_A_QUERY)
        prompts = dict.fromkeys(row["id"] for page in lists.values() for row in page.values["rows"])
        shown |= {(run.id, prompt) for prompt in prompts}
        write(f"{run.id}/data.html", data_page(site, run, {}))
        for name, page in lists.items():
            write(f"{run.id}/{name}.html", page)
        for prompt in prompts:
            write(f"{run.id}/p/{prompt}.html", sample_page(site, run, prompt, {}))
    for path in {*folder.glob("*/*.html"), *folder.glob("*/p/*.html")} - written:
        path.unlink()
    return len(written)
