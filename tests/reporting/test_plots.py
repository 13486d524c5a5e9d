import subprocess
import sys
from functools import cache
from html.parser import HTMLParser

import matplotlib
import pytest

from aligndistill.reporting.drawing import INK, SERIES
from aligndistill.reporting.plots import (
    DriftPoint,
    curves_plot,
    drift_plot,
    length_gap_plot,
    lengths_plot,
    reliability_plot,
    rounds_plot,
)
from tests.reporting.fake_run import full_page, mean


def drift(*names):
    points = [DriftPoint(name, index, mean(10 + index, 1), mean(0.6, 0.1)) for index, name in enumerate(names)]
    return drift_plot(points, "truth", {"start": 0.4})


def rounds(*values):
    return {str(number): mean(value, 0.05) for number, value in enumerate(values, 1)}


@cache
def all_plots():
    page = full_page()
    return {
        "drift": drift("dpo", "pro"),
        "reliability": reliability_plot(page.reliability),
        "length_gap": length_gap_plot(page.length_gaps),
        "curves": curves_plot(page.curves, {"dpo": 0, "pro": 1}),
        "rounds": rounds_plot({"accept rate": rounds(0.3, 0.4), "difficulty": rounds(1.2, 0.9)}),
        "lengths": lengths_plot(page.lengths, {"start": None, "teacher": None, "dpo": 0, "pro": 1}),
    }


class Elements(HTMLParser):
    def __init__(self, svg):
        super().__init__()
        self.tags, self.ids, self.references, self.texts = [], [], [], []
        self.feed(svg)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name == "xlink:href":
                self.references.append(value)
            if "url(" in value:
                self.references.append(value[value.index("url(") + 4 : value.index(")")])

    def handle_data(self, data):
        if data.strip():
            self.texts.append(data.strip())


@pytest.mark.parametrize("name", ["drift", "reliability", "length_gap", "curves", "lengths"])
def test_an_svg_element_and_nothing_else(name):
    svg = all_plots()[name].svg
    elements = Elements(svg)
    assert svg.startswith("<svg viewBox=")
    assert svg.rstrip().endswith("</svg>")
    assert set(elements.tags) <= {"svg", "defs", "g", "path", "use", "text", "tspan", "clippath", "rect"}
    assert elements.references
    assert {reference.removeprefix("#") for reference in elements.references} <= set(elements.ids)
    assert "http" not in svg
    assert "font-family" not in svg


def test_ids_of_different_plots_differ():
    ids = [id for plot in all_plots().values() for id in Elements(plot.svg).ids]
    assert len(ids) == len(set(ids))


def test_colours_are_the_pages():
    svg = drift("dpo", "pro").svg
    assert "currentColor" in svg
    assert f"var(--series-1, {SERIES[0]})" in svg
    assert f"var(--series-2, {SERIES[1]})" in svg
    assert INK not in svg
    assert "#000000" not in svg


@pytest.mark.process
def test_same_bytes_in_another_process():
    code = "from tests.reporting.test_plots import all_plots; print(*(plot.svg for plot in all_plots().values()), sep='')"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert other.stdout.rstrip("\n") == "".join(plot.svg for plot in all_plots().values()).rstrip("\n")


def test_the_users_matplotlib_settings_change_nothing_and_are_left_alone():
    before = drift("dpo").svg
    with matplotlib.rc_context({"font.size": 30, "axes.grid": True, "svg.fonttype": "path"}):
        assert drift("dpo").svg == before
        assert matplotlib.rcParams["font.size"] == 30


def test_names_are_text_whatever_they_hold():
    names = ["$\\frac{1$", "<script>alert(1)</script>", "日本", "a\nb"]
    elements = Elements(drift(*names).svg)
    assert "script" not in elements.tags
    assert "<script>alert(1)</scr..." in elements.texts
    assert "$\\frac{1$" in elements.texts


def test_alt_text_gives_the_numbers():
    against = "KL from the start, nats per response"
    assert drift("dpo").alt == f"truth against {against}: dpo 0.60 [0.50, 0.70] at 10.0 [9.0, 11.0]; start 0.40."
    plots = all_plots()
    assert "0.85 right at confidence 0.93 (20 pairs)" in plots["reliability"].alt
    assert "0.55 at < 0 tokens (20 pairs)" in plots["length_gap"].alt
    assert "pro from 3.00 to 2.00 in 10 steps" in plots["curves"].alt
    assert "start: median 30, longest 31" in plots["lengths"].alt


def test_labels_keep_apart():
    # Two students at the same place: their labels must not be written over each other.
    svg = drift_plot([DriftPoint(name, 0, mean(10, 1), mean(0.6, 0.1)) for name in ("first", "second")], "truth", {}).svg
    lines = [line for line in svg.splitlines() if ">first<" in line or ">second<" in line]
    places = [(line.split('x="')[1].split('"')[0], line.split('y="')[1].split('"')[0]) for line in lines]
    assert len(set(places)) == 2


def test_long_curves_are_thinned_and_odd_sizes_drawn():
    long = curves_plot({"a": [(step, float(step)) for step in range(10_000)]}, {"a": 0}).svg
    assert len(long) < 40_000
    assert "from 5.00 to 5.00 in 1 steps" in curves_plot({"a": [(1, 5.0)]}, {"a": 0}).alt
    assert lengths_plot({"a": [0]}, {"a": 0}).svg
    assert lengths_plot({"a": [1, 5000]}, {"a": 9}).svg


def test_rounds_are_told_one_by_one():
    plot = rounds_plot({"accept rate": rounds(0.3, 0.4)})
    assert plot.alt == "Over the rounds: accept rate 0.30 [0.25, 0.35] in round 1, 0.40 [0.35, 0.45] in round 2."
    assert "accept rate" in plot.svg
