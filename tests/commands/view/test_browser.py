"""The pages in a real Chromium: sizes, themes, keys, votes. One browser for all tests; skipped where there is none."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from aligndistill.commands.view.export import export_site
from aligndistill.commands.view.run_folder import find_runs
from aligndistill.commands.view.site import Site
from tests.commands.view.fake_run import FakeRun, write_run
from tests.commands.view.serving import Client, served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")
    with sync_api.sync_playwright() as playwright:
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield launched
        launched.close()


class Tab:
    """A tab that was let in by a viewer, or shows files of a folder, and what went wrong in it."""

    def __init__(self, browser: "Browser", shown: Client | str, width: int = 1400) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900})
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.elsewhere: list[str] = []
        self.base = shown if isinstance(shown, str) else f"http://{shown.host}"
        self.page.on(
            "console", lambda message: self.complaints.append(message.text) if message.type in ("error", "warning") else None
        )
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: None if request.url.startswith(self.base) else self.elsewhere.append(request.url))
        self.page.add_init_script(
            "addEventListener('securitypolicyviolation', (event) => console.error('CSP ' + event.violatedDirective));"
        )
        if isinstance(shown, Client):
            self.page.goto(self.base + shown.path_with_token)

    def open(self, path: str) -> "Page":
        self.page.goto(self.base + path)
        return self.page

    def overflow(self) -> int:
        """How many pixels the page is wider than the window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def looks_right(tab: Tab, addresses: Iterable[str]) -> None:
    """Each page fits at three widths, light and dark, with all that it folds away opened."""
    for address in addresses:
        page = tab.open(address)
        page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        assert page.locator("h1").count() == 1, address
        grounds = set()
        for width in (390, 768, 1400):
            page.set_viewport_size({"width": width, "height": 900})
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                assert tab.overflow() <= 0, (address, width)
                grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert len(grounds) == 2, "light and dark"
    tab.context.close()


def test_every_page_fits_and_no_page_complains(browser: "Browser", client: Client, fake: FakeRun) -> None:
    tab = Tab(browser, client)
    held_out, trained = fake.held_out[0].id, next(prompt.id for prompt in fake.prompts if prompt.split == "train")
    looks_right(
        tab,
        [
            "/",
            "/r/fake",
            "/r/fake/samples?f=worse&m=ppo",
            "/r/fake/samples?split=all&hide=teacher&page=1",
            "/r/fake/samples?q=nowhere",
            f"/r/fake/p/{held_out}",
            f"/r/fake/p/{trained}?split=all",
            "/r/fake/judge",
            "/r/fake/curves",
            "/r/fake/curves?x=seconds",
            "/r/fake/data",
            "/r/fake/data?page=2",
            "/r/fake/votes",
            "/r/fake/vote",
        ],
    )
    assert tab.complaints == []
    assert tab.elsewhere == []


def test_so_do_comparisons_of_runs_a_run_that_failed_and_a_page_that_is_not_there(browser: "Browser", tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("two", 1), ("three", 2)):
        made = write_run(tmp_path, name, prompts=12, seed=seed, measured=False)
    (made.folder / "events.jsonl").write_text(
        '{"t": 1, "stage": null, "event": "begin", "note": "aligndistill run three.yaml"}\n'
        f'{{"t": 2, "stage": "evaluation", "event": "fail", "note": "no answer from {"a" * 200}"}}\n'
    )
    (made.folder / "report.json").unlink()
    shutil.rmtree(next((tmp_path / "runs/store").glob("evaluation-*2")))
    with served(tmp_path / "runs", read_only=True) as client:
        tab = Tab(browser, client)
        looks_right(
            tab, ["/", "/c?r=one&r=two", "/c?r=two&r=one&r=three&m=ppo&by=length", "/r/three", "/r/one/vote", "/r/one/votes"]
        )
        assert tab.complaints == []
        assert tab.elsewhere == []
        assert '<span class="state failed">failed</span>' in client.get("/r/three")
        tab = Tab(browser, client)
        looks_right(tab, ["/r/nope", "/r/one/p/nope", "/c?r=one"])
        assert all("404" in text for text in tab.complaints)


def test_exported_pages_look_the_same_from_a_folder(browser: "Browser", fake: FakeRun, tmp_path: Path) -> None:
    export_site(Site(find_runs([], fake.folder.parent)), tmp_path)
    pages = ("index", "samples", "samples-1", "judge", "curves", "data", "votes", f"p/{fake.held_out[0].id}")
    tab = Tab(browser, tmp_path.as_uri())
    looks_right(tab, ["/index.html", *(f"/fake/{page}.html" for page in pages)])
    assert tab.complaints == []
    assert tab.elsewhere == []


def test_long_words_do_not_widen_a_page(browser: "Browser", tmp_path: Path) -> None:
    def text(field: str, default: str) -> str:
        return (
            f"{default} {'x' * 400}"
            if field in ("prompt", "answer", "candidate", "reply", "warning", "note", "rollout")
            else default
        )

    made = write_run(tmp_path, "n" * 120, prompts=8, text=text, measured=False)
    with served(tmp_path / "runs") as client:
        tab = Tab(browser, client, 390)
        run = f"/r/{made.folder.name}"
        for path in ("/", run, f"{run}/samples", f"{run}/p/{made.held_out[0].id}", f"{run}/data", f"{run}/curves", f"{run}/vote"):
            tab.open(path)
            assert tab.overflow() <= 0, path
        tab.context.close()


def test_an_injected_handler_does_not_run(browser: "Browser", tmp_path: Path) -> None:
    payload = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    made = write_run(
        tmp_path, prompts=8, text=lambda field, default: f"{default} {payload}" if field != "model" else default, measured=False
    )
    with served(tmp_path / "runs") as client:
        tab = Tab(browser, client)
        for path in ("", "/samples", f"/p/{made.held_out[0].id}", "/data", "/curves", "/judge"):
            page = tab.open(f"/r/fake{path}")
            assert page.title() != "owned"
            assert page.locator("img").count() == 0
        tab.open("/r/fake/vote").locator("#left", has_text="onerror").wait_for()
        assert tab.page.locator("img").count() == 0
        assert tab.complaints == []
        tab.context.close()


def test_keys_lead_to_the_next_sample_and_switch_differences(browser: "Browser", client: Client, fake: FakeRun) -> None:
    tab = Tab(browser, client)
    page = tab.open("/r/fake/samples?f=worse&m=ppo&sort=-delta")
    page.locator("tbody th a").first.click()
    page.wait_for_url("**/p/**")
    first = page.url
    assert "1 of" in page.locator(".where").inner_text()
    page.keyboard.press("j")
    page.wait_for_url(lambda url: url != first)
    assert "2 of" in page.locator(".where").inner_text()
    page.keyboard.press("k")
    page.wait_for_url(first)
    assert page.locator("del").first.is_visible()
    page.keyboard.press("d")
    assert not page.locator("del").first.is_visible()
    models = page.locator(".answer[data-model]").count()
    page.keyboard.press("2")
    page.wait_for_url("**hide=teacher**")
    assert page.locator(".answer[data-model]").count() == models - 1
    assert tab.complaints == []
    tab.context.close()


def test_a_live_page_follows_a_run(browser: "Browser", tmp_path: Path) -> None:
    from aligndistill.runs.events import Events

    made = write_run(tmp_path, prompts=8, measured=False)
    shutil.rmtree(next((tmp_path / "runs/store").glob("evaluation-*")))
    events = Events(made.folder / "events.jsonl")
    events.hold()
    with served(tmp_path / "runs") as client, events.stage("evaluation"):
        tab = Tab(browser, client)
        page = tab.open("/r/fake")
        events.add("progress", n=3, total=9, rate=1.5, eta_s=4.0)
        page.locator("#live", has_text="3 of 9").wait_for(timeout=10_000)
        assert tab.complaints == []
        tab.context.close()
    events.close()


# ---------------------------------------------------------------------------------------------------------------- votes


def votes(run: Path) -> list[dict[str, Any]]:
    path = run / "votes/ann.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def ready(tab: Tab, run: str = "fake") -> "Page":
    page = tab.open(f"/r/{run}/vote")
    page.locator("#status", has_text="pair 1 of").wait_for()
    return page


def test_twenty_keys_in_two_seconds_are_twenty_votes(browser: "Browser", tmp_path: Path) -> None:
    made = write_run(tmp_path, prompts=40, measured=False)
    with served(tmp_path / "runs") as client:
        tab = Tab(browser, client)
        page = ready(tab)
        for number in range(20):
            page.keyboard.press("abtx"[number % 4])
            time.sleep(0.09)
        page.get_by_text("Show the results").wait_for()
        stored = votes(made.folder)
        assert [one["vote"] for one in stored] == ["left", "right", "tie", "both_bad"] * 5
        assert len({one["id"] for one in stored}) == 20
        page.get_by_text("Show the results").click()
        page.get_by_text("judge and person choose the same answer").wait_for()
        assert tab.complaints == []
        tab.context.close()


def test_undo_note_and_skip_by_keys(browser: "Browser", tmp_path: Path) -> None:
    made = write_run(tmp_path, prompts=40, measured=False)
    with served(tmp_path / "runs") as client:
        tab = Tab(browser, client)
        page = ready(tab)
        page.keyboard.press("a")
        page.keyboard.press("u")
        page.locator("#status", has_text="pair 1 of").wait_for()
        page.keyboard.press("n")
        page.keyboard.type("about a b t")  # letters in a note are no votes
        page.keyboard.press("Enter")
        page.keyboard.press("b")
        page.keyboard.press("s")
        page.get_by_text("pair 3 of 20", exact=True).wait_for()
        assert [(one["vote"], one["note"]) for one in votes(made.folder)] == [
            ("left", ""),
            ("undo", ""),
            ("right", "about a b t"),
            ("skip", ""),
        ]
        tab.context.close()


SERVER = """
import sys
from pathlib import Path
from aligndistill.commands.view.run_folder import find_runs
from aligndistill.commands.view.server import Viewer
from aligndistill.commands.view.site import Site
viewer = Viewer(Site(find_runs([], Path(sys.argv[1])), "ann"), int(sys.argv[2]))
viewer._guard.token, viewer._guard._session = "t" * 43, "s" * 43
print("ready", flush=True)
viewer.serve()
"""


def start_server(runs: Path, port: int) -> subprocess.Popen[bytes]:
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(runs), str(port)], stdout=subprocess.PIPE)
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"
    return server


def test_a_server_killed_among_votes_loses_nothing(browser: "Browser", tmp_path: Path) -> None:
    made = write_run(tmp_path, prompts=40, measured=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = start_server(tmp_path / "runs", port)
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{port}/enter?token={'t' * 43}")
    page.goto(f"http://127.0.0.1:{port}/r/fake/vote")
    page.locator("#status", has_text="pair 1 of").wait_for()
    for number in range(20):
        page.keyboard.press("a")
        if number == 7:
            os.kill(server.pid, signal.SIGKILL)
            server.wait()
    page.get_by_text("not stored yet").wait_for()
    before = votes(made.folder)
    assert 0 < len(before) < 20
    server = start_server(tmp_path / "runs", port)
    page.get_by_text("Show the results").wait_for(timeout=30_000)
    after = votes(made.folder)
    assert after[: len(before)] == before
    assert len({one["id"] for one in after}) == len(after) == 20
    server.kill()
    server.wait()
    context.close()
