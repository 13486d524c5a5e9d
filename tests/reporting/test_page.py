import base64
import dataclasses
import hashlib
import re
from html.parser import HTMLParser

import pytest

from aligndistill.evaluation.intervals import Mean
from aligndistill.reporting.judge_metrics import JudgeMetrics, JudgeWork
from aligndistill.reporting.page import DataCounts, PageData, render_page, write_page
from aligndistill.reporting.report import Check, NewPrompts, Report, RoundMetrics, StudentMetrics
from aligndistill.reporting.samples import SampleAnswer, SamplePrompt
from aligndistill.reporting.writing import with_interval
from tests.reporting.fake_run import full_page, full_report, student

PAYLOADS = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "' onmouseover='alert(1)",
    "</style></title></pre></svg><iframe src=https://evil.example>",
    "{{ 7 * 7 }}{% include 'page.css' %}",
    "<a href=javascript:alert(1)>",
    "]]><!--",
]
VOID = {"meta", "img", "br", "hr", "input", "link", "base"}


@pytest.fixture(scope="module")
def full_html():
    return render_page(full_page())


class Page(HTMLParser):
    """What a browser would see: elements with their attributes, texts, and whether elements close in order."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.texts, self.open = [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def assert_self_contained(page):
    assert page.open == []
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "iframe", "img", "object", "embed", "link", "base", "form", "input", "foreignobject", "image"}
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("href", "xlink:href", "src", "srcset", "action", "data", "poster"):
                assert value.startswith("#") or (tag == "a" and value.partition("#")[0] == "verdicts.html"), (tag, name, value)
            assert name != "style", (tag, value)
            assert "url(" not in (value or "") or "url(#" in value
    css = page.texts[[tag for tag, _ in page.elements].index("style")]
    assert "@import" not in css


def hostile_page(payload):
    """A page with a payload in every text that comes from outside. Two names, since a dict's keys must differ."""
    one, two = payload, f"{payload} 2"
    hostile = student(0.6, 0.7).model_copy(update={"objective": payload, "model": payload})
    report = full_report().model_copy(
        update={
            "run": payload,
            "judge": JudgeMetrics(kind=payload, calls=1, unparsed=0),
            "students": {one: hostile, two: hostile},
            "checks": (Check(kind="length", student=payload, text=payload),),
            "warnings": (payload,),
            "versions": {payload: payload},
        }
    )
    return dataclasses.replace(
        full_page(),
        report=report,
        curves={one: [(1, 2.0), (2, 1.0)], two: [(1, 2.0)]},
        lengths={"start": [3], one: [4], two: [5]},
        samples={one: [SamplePrompt(payload, (SampleAnswer("start", payload, 0.1), SampleAnswer(one, f"{payload}.")), payload)]},
        counts=DataCounts(1, 1, 1, 1, 1, {payload: 3}),
        config_yaml=payload,
    )


def test_what_comes_from_outside_is_text():
    payload = " ".join(PAYLOADS)
    page = Page(render_page(hostile_page(payload)))
    assert_self_contained(page)
    harmless = Page(render_page(hostile_page("harmless")))
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in harmless.elements]
    written = " ".join(payload.split())
    # Title, heading, result 2; judge 2; check, warning; table 3; samples 6; dropped; trained models 6; config; versions 2.
    assert page.text.count(written) == 27


def test_the_policy_forbids_everything_that_is_not_here(full_html):
    page = Page(full_html)
    policies = [attributes["content"] for _, attributes in page.elements if "http-equiv" in attributes]
    css = re.search(r"<style>(.*?)</style>", full_html, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    assert policies == [f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:"]
    assert_self_contained(page)


def test_a_judge_of_the_evaluation_alone_is_measured(full_html):
    assert "The judge's kind is pairwise. A comparison" in Page(full_html).text
    work = JudgeWork(purpose="evaluation", verdicts=60, unparsed=1, calls=70, prompt_tokens=900, completion_tokens=60)
    sums = work.model_dump(exclude={"purpose", "cached"})
    alone = JudgeMetrics(kind="rubric", evaluation_kind="rubric", work=(work,), **sums)
    for judge, kinds in ((alone, "rubric"), (alone.model_copy(update={"kind": "listwise"}), "listwise (in the evaluation rubric)")):
        page = Page(render_page(PageData(report=full_report().model_copy(update={"judge": judge}))))
        assert f"judge {kinds}" in page.text
        assert f"The judge's kind is {kinds}. A comparison" in page.text
        assert "evaluation 60 1 70 900 60" in page.text
        assert not [line for line in re.findall("not measured.{0,60}", page.text) if "judge" in line]


def test_full_page_shows_every_metric(full_html):
    page = Page(full_html)
    for shown in [
        "Leading student of 2: pro. All others are behind it",
        "[0.69, 0.79]",
        "38 s",
        "labelling 3,072 14 3,072 1,000 8,900 3,072",
        "canaries 40 0 40 3 100 40",
        "sum 3,112 14 3,112 1,003 9,000 3,112",
        "60 / 16 / 20, n = 96",
        "0.71 [0.66, 0.76]",
        "weight of length in training, left out of the reward 1.24",
        "duplicate prompt 12",
        "winner changes with the order see them 6% [3%, 9%] 96",
        "longer answer wins 61% [56%, 66%] 96 by chance 50% [46%, 54%]; by the labels 58% [53%, 63%]",
        "agrees with the labels 70% [65%, 75%] 96 always taking the longer: 58% [53%, 63%]",
        "of kind other prompt 20% [15%, 25%] 96",
        "kappa with the labels 0.40 [0.35, 0.45]",
        "answer of teacher",
        "Most gained: truth +0.40 prompt 0123456789abcdef",
        "truth 0.50 · reward -1.25",
        "Less diverse answers dpo is less diverse.",
        "12% of answers were cut",
        "students/pro",
        "name: quick",
    ]:
        assert shown in page.text, shown
    headings = [tag for tag, _ in page.elements if tag in ("h1", "h2")]
    assert headings == ["h1"] + ["h2"] * 7
    assert [attributes.get("class") for tag, attributes in page.elements if tag == "td"].count("best") == 1
    assert "simultaneous 95% intervals: dpo +0.12 [+0.07, +0.17]." in page.text


def test_plots_are_described(full_html):
    page = Page(full_html)
    labels = [attributes["aria-label"] for _, attributes in page.elements if attributes.get("role") == "img"]
    assert len(labels) == 8  # six plots, and a bar of wins, ties and losses for each student
    assert labels.count("60 wins, 16 ties, 20 losses of 96") == 2
    assert all(len(label) > 30 for label in labels)


def test_whiskers_are_on_the_columns_scale(full_html):
    page = Page(full_html)
    # Truth, which is a share here, runs from 0 to 1, and length from 0 to the highest end of an interval, 36.2. All places are
    # shifted by 2, where the line begins.
    centres = [attributes["cx"] for tag, attributes in page.elements if tag == "circle"]
    assert str(54.0 + 2) in centres
    assert str(round(100 * 34.2 / 36.2, 2) + 2) in centres
    # A win rate's scale is 0 to 1, and its tick one half.
    assert str(66.0 + 2) in centres
    assert [attributes["x1"] for tag, attributes in page.elements if tag == "line" and attributes["x1"] == "52.0"]


def test_links_lead_somewhere(full_html):
    for html in (full_html, render_page(PageData(report=Report(run="r", seed=0)))):
        page = Page(html)
        ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
        assert len(ids) == len(set(ids))
        links = {attributes["href"] for tag, attributes in page.elements if tag == "a"}
        assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
        assert {link for link in links if not link.startswith("#")} <= {"verdicts.html", "verdicts.html#order-flips", *OTHERS}


OTHERS = {"verdicts.html#unreadable", "verdicts.html#canaries-won"}


def reports_with_gaps():
    full = full_report()
    unmeasured = StudentMetrics(objective="pro", model="m")
    return {
        "empty": Report(run="r", seed=0),
        "no teacher": full.model_copy(update={"teacher": None}),
        "no reward model": full.model_copy(update={"reward_model": None}),
        "no judge": full.model_copy(update={"judge": None}),
        "no students": full.model_copy(update={"students": {}}),
        "nothing measured": Report(run="r", seed=0, students={"pro": unmeasured}),
        "one measured": full.model_copy(update={"students": {"pro": unmeasured, "dpo": student(0.5, 0.6)}}),
        "no lengths known": full.model_copy(update={"reward_model": full.reward_model.model_copy(update={"longer_wins": None})}),
        "no length term": full.model_copy(update={"reward_model": full.reward_model.model_copy(update={"length_weight": None})}),
    }


@pytest.mark.parametrize("name", reports_with_gaps())
def test_pages_with_gaps(name):
    report = reports_with_gaps()[name]
    page = Page(render_page(PageData(report=report)))
    assert_self_contained(page)
    assert "None" not in page.text
    assert report.run in page.text


def test_a_report_with_gaps_beside_all_the_rest():
    page = Page(render_page(dataclasses.replace(full_page(), report=Report(run="r", seed=0))))
    assert_self_contained(page)
    assert "Accuracy by length gap" in page.text


def test_gaps_are_named(full_html):
    empty = Page(render_page(PageData(report=Report(run="r", seed=0))))
    assert "not measured truth, win rate, teacher, judge, reward model" in empty.text
    # The full page has a teacher without comparisons, and every cell that is empty says why.
    assert "not measured truth" not in Page(full_html).text
    assert "is the start" in Page(full_html).text


def test_same_data_same_bytes(tmp_path, full_html):
    write_page(tmp_path / "report.html", full_page())
    assert (tmp_path / "report.html").read_bytes() == full_html.encode()


def test_text_of_any_kind_can_be_written(tmp_path):
    odd = "lone \ud800 surrogate, \x00 nul, \u202e override, \N{SNOWMAN}"
    sample = SamplePrompt(odd, (SampleAnswer("start", odd), SampleAnswer("pro", "  ")))
    write_page(tmp_path / "report.html", PageData(report=full_report(), samples={"pro": [sample]}))
    written = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "lone ⟨U+D800⟩ surrogate, ⟨U+0000⟩ nul, ⟨U+202E⟩ override, \N{SNOWMAN}" in written
    assert "(empty)" in written


def test_quality_and_distance_are_plotted_round_by_round():
    page = full_page()
    first, second = page.report.students["dpo"], page.report.students["pro"]
    of_round = {"win_rate": None, "win_rate_lc": None, "kl_nats": None, "length_growth": 1.0, "pairs": 9, "ended": None}
    rounds = tuple(RoundMetrics(round=number, student=name, **of_round) for number, name in (("1", "dpo"), ("2", "dpo-r2")))
    report = page.report.model_copy(update={"students": {"dpo": first, "dpo-r2": second}, "rounds": rounds})
    text = render_page(dataclasses.replace(page, report=report))
    told = f"{with_interval(first.truth)} in round 1, {with_interval(second.truth)} in round 2"
    assert f"Over the rounds: truth {told}" in text
    assert f"KL from the start, nats {with_interval(first.kl_nats)} in round 1" in text
    assert text.count("Over the rounds:") == 2  # neither accept rate nor difficulty was measured


def test_a_round_shows_its_new_prompts_beside_the_others_and_the_second_judge():
    mean = Mean(mean=0.25, low=0.125, high=0.5, n=40)
    other = Mean(mean=0.75, low=0.625, high=0.875, n=40)
    of_round = {"win_rate": None, "win_rate_lc": None, "kl_nats": None, "length_growth": 1.0, "pairs": 9, "ended": None}
    new = NewPrompts(prompts=17, accept_rate=mean, accept_rate_of_others=other)
    plain, written = (
        RoundMetrics(round="1", **of_round),
        RoundMetrics(round="2", new_prompts=new, second_agreement=other, **of_round),
    )
    text = Page(render_page(PageData(report=Report(run="r", seed=0, rounds=(plain, written))))).text
    assert f"2 17 {with_interval(mean)} {with_interval(other)} not measured not measured" in text
    assert text.count(with_interval(other)) == 2
    assert "written for the round" not in Page(render_page(PageData(report=Report(run="r", seed=0, rounds=(plain,))))).text
