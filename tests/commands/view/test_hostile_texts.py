"""Texts of models and data are shown as text, whatever is in them: 40 payloads in every field, on every page."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from aligndistill.commands.view.links import FileLinks, Links
from aligndistill.commands.view.pages.compare import compare_page
from aligndistill.commands.view.pages.curves import curves_page
from aligndistill.commands.view.pages.data import data_page
from aligndistill.commands.view.pages.judge import judge_page
from aligndistill.commands.view.pages.runs import run_page, runs_page
from aligndistill.commands.view.pages.sample import sample_page
from aligndistill.commands.view.pages.samples import samples_page
from aligndistill.commands.view.pages.votes import vote_page, votes_page
from aligndistill.commands.view.rows import storable
from aligndistill.commands.view.run_folder import find_runs
from aligndistill.commands.view.site import Site
from aligndistill.reporting.texts import visible, word_diff
from tests.commands.view.fake_run import write_run

PAYLOADS = (
    "<script>xss()</script>",
    "<img src=x onerror=xss()>",
    "<svg onload=xss()>",
    "<svg><script>xss()</script></svg>",
    "<iframe src=javascript:xss()>",
    "<iframe srcdoc='<script>xss()</script>'>",
    "<body onload=xss()>",
    "<a href=javascript:xss()>x</a>",
    "<a href='//evil.example'>x</a>",
    "<form action=//evil.example><input name=q></form>",
    "<input autofocus onfocus=xss()>",
    "<details open ontoggle=xss()>",
    "<video><source onerror=xss()>",
    "<audio src=x onerror=xss()>",
    "<object data=javascript:xss()>",
    "<embed src=//evil.example>",
    "<link rel=stylesheet href=//evil.example>",
    "<style>*{background:url(//evil.example)}</style>",
    "<base href=//evil.example>",
    "<meta http-equiv=refresh content='0;url=//evil.example'>",
    "<math><mtext><table><mglyph><style><img src=x onerror=xss()>",
    "<template><script>xss()</script></template>",
    "<noscript><p title='</noscript><img src=x onerror=xss()>'>",
    "<textarea><script>xss()</script>",
    "</title><script>xss()</script>",
    "</pre><script>xss()</script>",
    "</style><script>xss()</script>",
    "--><script>xss()</script><!--",
    "<![CDATA[<script>xss()</script>]]>",
    '" onmouseover="xss()',
    "' onmouseover='xss()",
    '" autofocus onfocus=xss() x="',
    "`onmouseover=xss()`",
    "javascript:xss()",
    "data:text/html,<script>xss()</script>",
    "{{ 7 * 7 }}{% for x in ().__class__.__base__.__subclasses__() %}x{% endfor %}",
    "&lt;script&gt;xss()&lt;/script&gt;&#60;img src=x onerror=xss()&#62;",
    "<scr\x00ipt>xss()</scr\x00ipt>",
    "\u202e<script>xss()</script>\u202c\u200b\ufeff\x1b[31m",
    "\ud83d<script>xss()</script>",  # half of a surrogate pair
)

FIELDS = (
    *(
        "prompt",
        "source",
        "answer",
        "canary",
        "reference",
        "judge",
        "reply",
        "thoughts",
        "candidate",
        "author",
        "reason",
        "warning",
    ),
    *("rollout", "config", "command", "note", "model"),
)
OWN_TAGS = {
    *(
        "html",
        "head",
        "meta",
        "title",
        "link",
        "script",
        "body",
        "a",
        "nav",
        "main",
        "h1",
        "h2",
        "h3",
        "p",
        "section",
        "div",
        "table",
    ),
    *(
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "span",
        "b",
        "ul",
        "li",
        "ol",
        "form",
        "label",
        "select",
        "option",
        "input",
        "button",
        "code",
    ),
    *(
        "pre",
        "details",
        "summary",
        "article",
        "figure",
        "figcaption",
        "svg",
        "polyline",
        "path",
        "rect",
        "line",
        "circle",
        "text",
        "ins",
        "del",
        "mark",
    ),
    *("dl", "dt", "dd", "progress", "noscript", "kbd", "br"),
}
OWN_ATTRIBUTES = {
    *(
        "lang",
        "charset",
        "name",
        "content",
        "rel",
        "href",
        "src",
        "defer",
        "class",
        "id",
        "aria-current",
        "aria-label",
        "aria-pressed",
    ),
    *("aria-hidden", "role", "tabindex", "scope", "title", "colspan", "method", "action", "type", "value", "selected", "inputmode"),
    *("size", "hidden", "open", "max", "min", "viewbox", "x", "x1", "x2", "y", "y1", "y2", "cx", "cy", "r", "points", "data-name"),
    *(
        "data-live",
        "data-key",
        "data-toggle",
        "data-model",
        "data-submit",
        "d",
        "width",
        "height",
        "rx",
        "data-pairs",
        "data-send",
        "data-results",
        "data-vote",
    ),
    "maxlength",
}


class Reader(HTMLParser):
    """Everything in a page that is not text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.addresses: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.addresses += [
            value or "" for name, value in attrs if name in ("href", "src", "action", "data-live", "data-pairs", "data-send")
        ]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def assert_harmless(page: str, static: bool = False) -> str:
    """Returns the page's text."""
    page.encode("utf-8")
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert set(reader.tags) <= OWN_TAGS
    assert reader.attributes <= OWN_ATTRIBUTES
    assert reader.tags.count("script") == (0 if static else 1)
    for address in reader.addresses:
        assert re.match(r"#|(\.\./|[\w.~%/-])+$" if static else r"/(?!/)|#", address), address
        assert not address.lower().startswith(("javascript", "data:", "//", "http"))
    text = "".join(reader.texts)
    assert not set("\x00\x1b\u202e\u202c\u200b\ufeff\ud83d") & set(page)
    return text


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> list[Site]:
    """A site for each payload, which is in every field of its run."""
    found = []
    for number, payload in enumerate(PAYLOADS):
        base = tmp_path_factory.mktemp("hostile")

        def text(field: str, default: str, payload: str = payload) -> str:
            if field == "model":
                return payload.encode("utf-8", "replace").decode() if default == "ppo" else default
            if field in ("config", "warning", "reason", "command", "note"):
                return payload.encode("utf-8", "replace").decode()
            return f"{default} {payload}" if field in ("prompt", "answer", "candidate") else payload

        write_run(base, prompts=5, text=text, measured=False, seed=number)
        found.append(Site(find_runs([], base / "runs")))
    return found


def test_there_are_forty_payloads_and_every_field_of_a_fake_run_takes_them() -> None:
    assert len(set(PAYLOADS)) == 40
    source = Path(__file__).with_name("fake_run.py").read_text()
    assert set(re.findall(r'text\(\s*"(\w+)"', source)) == set(FIELDS)


@pytest.mark.parametrize(
    "number", range(len(PAYLOADS)), ids=lambda number: PAYLOADS[number].encode("ascii", "replace").decode()[:30]
)
def test_no_page_runs_or_shows_what_a_text_says(sites: list[Site], number: int) -> None:
    site = sites[number]
    (run,) = site.runs.values()
    shown = visible(PAYLOADS[number])
    asked = PAYLOADS[number] if storable(PAYLOADS[number]) == PAYLOADS[number] else "xss"  # no browser sends half a character
    with site.index(run) as index:
        prompts = [row[0] for row in index.db.execute("select id from prompts")]
        models = list(index.models)
    pages = {
        "runs": runs_page(site),
        "run": run_page(site, run),
        "samples": samples_page(site, run, {"q": asked, "m": models[-1], "split": "all", "source": storable(PAYLOADS[number])}),
        "judge": judge_page(site, run),
        "curves": curves_page(site, run, {"x": PAYLOADS[number], "u.ppo": "1"}),
        "data": data_page(site, run, {}),
        "vote": vote_page(site, run, {"f": PAYLOADS[number]}),
        "votes": votes_page(site, run),
        **{f"sample {prompt}": sample_page(site, run, prompt, {"d": "start"}) for prompt in prompts},
    }
    texts = {name: assert_harmless(site.render(page, Links())) for name, page in pages.items()}
    for name in ("samples", "data", f"sample {prompts[0]}"):
        assert shown in texts[name], f"the {name} page shows the text as it is"
    exported = frozenset((run.id, prompt) for prompt in prompts)
    for name in pages.keys() - {"vote"}:
        assert_harmless(site.render(pages[name], FileLinks(depth=1, exported=exported)), static=True)


@pytest.mark.parametrize("number", [0, 29, 38, 39])
def test_nor_does_a_comparison(sites: list[Site], number: int) -> None:
    """Its intervals take time, so it is tried with one payload of each sort."""
    (run,) = sites[number].runs.values()
    both = Site({"a": run, "b": run})
    page = compare_page(both, ["a", "b"], {"m": PAYLOADS[number]})
    assert_harmless(both.render(page, Links()))


def test_the_name_of_a_run_is_a_text_too(tmp_path: Path) -> None:
    for number, name in enumerate(('<img src=x onerror="xss()">', "' onmouseover='xss()", "javascript:xss()", "a&b?c#d%2e")):
        write_run(tmp_path, name=name, prompts=4, measured=False, seed=number)
    site = Site(find_runs([], tmp_path / "runs"))
    assert len(site.runs) == 4
    for run in site.runs.values():
        for page in (runs_page(site), run_page(site, run), samples_page(site, run, {}), data_page(site, run, {})):
            assert_harmless(site.render(page, Links()))


def test_invisible_characters_are_written_out_and_others_stay() -> None:
    assert (
        visible("a\u202eb\u0000\x1b[0m\u200b\ufeff\u2066\ud800") == "a⟨U+202E⟩b⟨U+0000⟩⟨U+001B⟩[0m⟨U+200B⟩⟨U+FEFF⟩⟨U+2066⟩⟨U+D800⟩"
    )
    for text in ("one\ttwo\nthree", "größer 日本語 العربية 😀 e\u0301"):
        assert visible(text) == text
    assert visible("soft\u00adhyphen\u0085") == "soft⟨U+00AD⟩hyphen⟨U+0085⟩"


def test_a_difference_holds_both_texts() -> None:
    before, after = "The capital of Japan is  Tokyo.", "That city in Japan is Ottawa, I think."
    pieces = word_diff(before, after)
    assert "".join(piece.text for piece in pieces if piece.kind != "removed") == after
    assert [piece for piece in pieces if piece.kind != "same"][:2] == [("removed", "The capital of"), ("added", "That city in")]
    assert word_diff("same text", "same text") == [("same", "same text")]
    assert word_diff("", "new") == [("added", "new")]
    assert word_diff("old", "") == [("removed", "old")]
