"""The report's part on prompts that models wrote: there only if they wrote some, and all text from outside escaped."""

import json
from pathlib import Path

import pytest

from aligndistill.reporting.page import PageData, render_page
from aligndistill.reporting.report import Report, read_report, write_report
from aligndistill.reporting.written_data import DiversityMetrics, ElicitationMetrics, ElicitedSample
from tests.reporting.fake_run import full_report
from tests.reporting.test_page import PAYLOADS, Page, assert_self_contained


def diversity(nearest: float) -> DiversityMetrics:
    return DiversityMetrics(
        prompts=500, distinct_1=0.11, distinct_2=0.52, compression=2.75, nearest_mean=nearest, nearest_p10=nearest / 2
    )


def step(text: str = "Explain tides", **changes: object) -> ElicitationMetrics:
    return ElicitationMetrics(
        step="more",
        kind="expand",
        models=("teacher",),
        requests=1250,
        parsed=10_000,
        kept=2000,
        dropped={"too short": 12, text: 7988},
        stopped="the last 20 requests gave no new prompt (patience)",
        calls=1250,
        prompt_tokens=400_000,
        completion_tokens=200_000,
        tokens_per_prompt=300.0,
        usd_per_prompt=0.00123,
        diversity=diversity(0.61),
        diversity_before=diversity(0.44),
        novelty=0.58,
        fertile=0.23,
        categories={text: 1.0},
        samples=(
            ElicitedSample(operation="expand", author=text, topic=None, parent="Explain the moon", text=text),
            ElicitedSample(operation="curate", author="teacher", topic=text, parent=None, text="About it"),
            ElicitedSample(operation="magpie", author="teacher", topic=None, parent=None, text="Own"),
        ),
    ).model_copy(update=changes)


def page(*steps: ElicitationMetrics) -> Page:
    return Page(render_page(PageData(report=full_report().model_copy(update={"elicitation": steps}))))


def test_the_funnel_diversity_and_samples_are_shown() -> None:
    shown = page(step())
    assert_self_contained(shown)
    for text in (
        "more expand teacher 1,250 10,000 2,000 300 1.23",
        "more stopped early: the last 20 requests gave no new prompt (patience).",
        "too short 12",
        "before more 500 0.11 0.52 2.75 0.44 0.22 of new ones only of new ones only",
        "new of more 500 0.11 0.52 2.75 0.61 0.3",
        "0.58 23%",
        "more Explain tides 100%",
        "Samples of more",
        "Explain the moon Explain tides",
        "topic: Explain tides About it",
        "magpie teacher nothing Own",
    ):
        assert text in shown.text, text


def test_what_was_not_measured_is_left_out() -> None:
    gaps = step(
        tokens_per_prompt=None, usd_per_prompt=None, diversity=None, diversity_before=None, dropped={}, samples=(), stopped=None
    )
    shown = page(gaps)
    assert_self_contained(shown)
    assert "None" not in shown.text
    assert "more expand teacher 1,250 10,000 2,000 not measured no price" in shown.text


def test_what_models_wrote_is_text() -> None:
    payload = " ".join(PAYLOADS)
    hostile, harmless = page(step(payload)), page(step("harmless"))
    assert_self_contained(hostile)
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in harmless.elements]
    assert hostile.text.count(" ".join(payload.split())) == 5  # reason, category, author, text and topic of the samples


def test_a_run_without_steps_has_neither_section_nor_key(tmp_path: Path) -> None:
    assert "Prompts that models wrote" not in page().text
    write_report(tmp_path / "report.json", full_report())
    assert "elicitation" not in json.loads((tmp_path / "report.json").read_text())


def test_the_report_is_read_again(tmp_path: Path) -> None:
    report = Report(run="r", seed=0, elicitation=(step(),))
    write_report(tmp_path / "report.json", report)
    assert read_report(tmp_path / "report.json") == report
    (written,) = json.loads((tmp_path / "report.json").read_text())["elicitation"]
    assert written["diversity"]["nearest_p10"] == pytest.approx(0.305)
