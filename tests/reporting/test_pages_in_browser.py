"""The report and the verdicts in a real Chromium: three widths, light and dark. Skipped where there is none."""

import os
import shutil
from pathlib import Path

import pytest

from aligndistill.reporting.about import About, ModelSize, StageTime
from aligndistill.reporting.inserts import with_inserts
from aligndistill.reporting.page import render_page
from aligndistill.reporting.verdicts_page import write_verdicts_pages
from tests.reporting.fake_run import full_page
from tests.reporting.test_page import hostile_page
from tests.reporting.test_verdicts_page import comparison, judged

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]
LONG = "a-name-without-any-place-to-break-" * 5


def pages(folder: Path) -> list[Path]:
    about = About(
        command=f"aligndistill run {LONG}",
        machine=f"{LONG}, 2 CPU cores",
        models=(ModelSize(name="start", model=LONG, parameters=270_000_000),),
        stages=(
            StageTime(stage=f"student-{LONG}", finished="2026-11-29T12:00:00+00:00", seconds=61.0, requests=3, tokens=9, usd=1.5),
        ),
    )
    for name, data in (("report", full_page()), ("hostile", hostile_page(f"<img src=x onerror=alert(1)> {LONG}"))):
        report = data.report.model_copy(update={"about": about})
        (folder / f"{name}.html").write_text(with_inserts(render_page(data), report, f"runs/{LONG}"))
    write_verdicts_pages(folder, LONG, [judged(LONG, comparison("x", "y", 0.9)), judged(LONG, comparison("x", "y", None))])
    return [folder / "report.html", folder / "hostile.html", folder / "verdicts.html"]


def test_pages_fit_load_nothing_and_keep_their_policy(tmp_path: Path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")
    complaints: list[str] = []
    written = pages(tmp_path)
    with sync_api.sync_playwright() as playwright:
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        for theme in ("light", "dark"):
            context = browser.new_context(color_scheme=theme)
            tab = context.new_page()
            tab.on("console", lambda message: complaints.append(message.text))
            tab.on("request", lambda request: None if request.url.startswith("file:") else complaints.append(request.url))
            for path in written:
                for width in (390, 768, 1400):
                    tab.set_viewport_size({"width": width, "height": 900})
                    tab.goto(path.as_uri())
                    wider = tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
                    assert wider == 0, (path.name, width)
                    if path.name == "report.html":
                        shown_as = tab.evaluate("getComputedStyle(document.querySelector('.cards td')).display")
                        assert shown_as == ("grid" if width < 640 else "table-cell")
                        tab.evaluate("scrollTo(0, 3000)")
                        assert tab.evaluate("document.querySelector('nav').getBoundingClientRect().top") == 0, "it stays in sight"
                        tab.evaluate("scrollTo(0, 0)")
            context.close()
        browser.close()
    assert complaints == []
