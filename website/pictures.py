"""Takes the README's pictures of a finished quickstart, and puts its table into the tutorial: `python -m website.pictures RUN`.

Left are the report's results and checks, right a sample of the viewer with differences and verdicts; once light, once dark. Needs
Chromium, Playwright, and an evaluation with a checker.
"""

import base64
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from aligndistill.commands.view.run_folder import find_runs
from aligndistill.commands.view.server import Viewer
from aligndistill.commands.view.site import Site

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs/pictures"
PAGE_WITH_TABLE = ROOT / "docs/tutorial/ten-minutes.md"
TABLE = re.compile(r"(<!-- table -->\n```text\n).*?(```\n<!-- end of table -->)", flags=re.DOTALL)
HIDDEN = "best_of_n,rrhf,pro,ppo_teacher,dpo"
"""Models that the sample leaves out."""

WIDTH, HEIGHT, SHOWN = 1400, 1124, 1600
"""Of the window that each half is taken in, and the width of the whole picture, pixels."""

RESULTS_HEIGHT = 666
"""Of the left half; the checks are below, pixels."""


@contextmanager
def viewer(run: Path) -> Iterator[Viewer]:
    """The viewer of a run, serving in a thread."""
    served = Viewer(Site(find_runs([run], run.parent), "reader", True), 0)
    thread = threading.Thread(target=served.serve, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        served.stop()
        thread.join()


def halves(browser: "Browser", run: Path, address: str, scheme: str) -> tuple[list[bytes], list[bytes]]:
    """The report's results and checks, and the first sample that `ppo` made worse, as PNG."""
    context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(f"file://{run / 'report.html'}")
    report = [part(page, "#results", RESULTS_HEIGHT), part(page, "#checks", HEIGHT - RESULTS_HEIGHT)]
    page.goto(address)
    base = address.partition("/enter")[0]
    page.goto(f"{base}/r/{run.name}/samples?f=worse&m=ppo&hide={HIDDEN}")
    page.goto(base + str(page.locator(f"a[href*='/r/{run.name}/p/']").first.get_attribute("href")))
    sample = page.screenshot()
    context.close()
    return report, [sample]


def part(page: "Page", selector: str, height: int) -> bytes:
    """A part of a page from its top to this height, pixels."""
    box = page.locator(selector).bounding_box()
    assert box is not None, f"the page has no {selector}"
    return page.screenshot(full_page=True, clip={"x": 0, "y": box["y"], "width": WIDTH, "height": height})


def side_by_side(browser: "Browser", columns: Sequence[list[bytes]], background: str, target: Path) -> None:
    """Two columns of pictures in one."""
    images = (
        "".join(f'<img src="data:image/png;base64,{base64.b64encode(one).decode()}">' for one in column) for column in columns
    )
    style = f"body{{margin:0;background:{background};display:flex;gap:16px}}div{{width:50%}}img{{width:100%;display:block}}"
    page = browser.new_page(viewport={"width": SHOWN, "height": round(HEIGHT * (SHOWN / 2 - 8) / WIDTH)})
    page.set_content(f"<style>{style}</style>" + "".join(f"<div>{column}</div>" for column in images))
    page.screenshot(path=target)
    page.close()


def table_of(run: Path) -> str:
    """What the finished run prints when it is run again: its result."""
    command = [sys.executable, "-m", "aligndistill", "run", f"{run.name}.yaml"]
    environment = {**os.environ, "COLUMNS": "100", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=run.parents[1], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    lines = (line.rstrip() for line in ended.stdout.splitlines() if not line.startswith("Nothing to do"))
    return "\n".join(lines) + "\n"


def main() -> None:
    """Take the pictures and insert the table."""
    from playwright.sync_api import sync_playwright

    run = Path(sys.argv[1]).resolve()
    table = table_of(run)  # first: it writes the report again if it is older than the code
    PICTURES.mkdir(exist_ok=True)
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with viewer(run) as served, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        for scheme, background in (("light", "#ffffff"), ("dark", "#0d1117")):
            side_by_side(browser, halves(browser, run, served.address, scheme), background, PICTURES / f"quickstart-{scheme}.png")
        browser.close()
    text = PAGE_WITH_TABLE.read_text(encoding="utf-8")
    PAGE_WITH_TABLE.write_text(TABLE.sub(lambda found: found.group(1) + table + found.group(2), text), encoding="utf-8")


if __name__ == "__main__":
    main()
