"""Views for notebooks: small, self-contained, escaped, and with styles that touch nothing else on the page."""

import re
from html.parser import HTMLParser

from aligndistill.evaluation.intervals import Mean
from aligndistill.reporting.notebook import comparison_html, run_html, samples_html, unfinished_html
from aligndistill.reporting.samples import SampleAnswer, SamplePrompt
from aligndistill.runs.comparison import ComparedModel
from tests.reporting.fake_run import full_report, mean
from tests.reporting.test_page import PAYLOADS

HOSTILE = " ".join(PAYLOADS) + " \u202e"


class Tags(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def assert_safe(html: str) -> Tags:
    found = Tags(html)
    assert not {"script", "iframe", "img", "link", "object"} & set(found.tags)
    assert not [name for name, _ in found.attributes if name.startswith("on") or name in ("style", "src")]
    (css,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    selectors = [part.strip() for rule in re.findall(r"([^{}]+)\{", css) for part in rule.split(",")]
    assert all(selector.startswith(".aligndistill") for selector in selectors), selectors
    assert len(html) < 100_000
    return found


def test_a_run_in_short() -> None:
    found = assert_safe(run_html(full_report(), "runs/quick"))
    for shown in ("Leading student of 2: pro", "dpo is less diverse", "0.68 *", "is the start", "aligndistill view runs/quick"):
        assert shown in found.text, shown
    assert found.tags.count("svg") == 2 + 4  # two plots, and a mark for each model


def test_names_from_outside_are_text() -> None:
    report = full_report()
    report = report.model_copy(
        update={"run": HOSTILE, "students": {HOSTILE: report.students["dpo"]}, "leading": None, "checks": ()}
    )
    found = assert_safe(run_html(report, HOSTILE))
    assert "<script>alert(1)</script>" in found.text
    assert "\u202e" not in found.text
    assert_safe(unfinished_html(HOSTILE, [HOSTILE], HOSTILE))


def test_samples_are_compared_word_by_word_and_escaped() -> None:
    start = SampleAnswer("start", f"That is Paris. {HOSTILE}", 1.0, None, 3)
    answer = SampleAnswer("dpo", f"That is Rome. {HOSTILE}", 0.0, None, 3, 0.1)
    found = assert_safe(samples_html("dpo, worse: 1 prompts", [SamplePrompt(HOSTILE, (start, answer))], "dpo"))
    assert "truth 0.00 · 3 tokens · loses to start" in found.text
    assert re.search(r"That is PParis|That is ParisRome", found.text)  # removed, then added
    assert (found.tags.count("del"), found.tags.count("ins")) == (1, 1)
    assert_safe(samples_html("none", [], "dpo"))


def test_two_runs_beside_each_other() -> None:
    cells = {("dpo", "truth"): ComparedModel(0.5, 0.53, Mean(mean=0.03, low=-0.01, high=0.07, n=251))}
    cells |= {(HOSTILE, "win"): ComparedModel(0.7, 0.6, mean(-0.1))}
    found = assert_safe(comparison_html("a -> b", [HOSTILE], cells))
    text = " ".join(found.text.split())
    assert "0.50 -> 0.53+0.03 [-0.01, +0.07], n = 251" in text
    assert text.count("not measured in both") == 2
    assert "win rate" in text
    assert_safe(comparison_html("nothing", ["no model is in both"], {}))
