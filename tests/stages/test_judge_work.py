"""The judge's work, counted by purpose; the sums are those of the table."""

import json
from dataclasses import replace
from pathlib import Path

from aligndistill.config.audit import Audit
from aligndistill.records import Comparison, Usage
from aligndistill.reporting.checks import checks_of
from aligndistill.reporting.judge_metrics import JudgeMetrics
from aligndistill.reporting.report import Report, StartMetrics
from aligndistill.stages import verdicts
from aligndistill.stages.files import CANARIES, REPEATS, VERDICTS
from aligndistill.stages.judge_work import judge_work
from aligndistill.store.jsonl import write_jsonl
from tests.stages.labelled import MODELS, context_in, judge_of, labelled, labelling_of, with_teacher


def test_each_purpose_is_counted_and_summed(tmp_path: Path) -> None:
    context = context_in(tmp_path)
    labelled(context, lambda prompt, first, second: "A" if first > second else "B")
    found = judge_work("pairwise", None, {"1": {"verdicts": context.folder}}, None)
    assert found is not None
    # 60 prompts with 3 pairs in both orders; 20 canaries with one pair; 5 prompts asked again.
    assert [(one.purpose, one.verdicts) for one in found.work] == [("labelling", 360), ("asked again", 30), ("canaries", 40)]
    assert (found.verdicts, found.calls, found.unparsed) == (430, 430, 0)
    assert found.completion_tokens == sum(one.completion_tokens for one in found.work)


def test_calls_that_an_earlier_run_made_are_counted_apart(tmp_path: Path) -> None:
    context = with_teacher(context_in(tmp_path), lambda prompt, first, second: "A")
    given = labelling_of(context, judge_of(tmp_path), MODELS, Audit().probes).arguments
    first = verdicts.make(context, **given)
    assert first.metrics["cached"] == {"labelling": 0, "asked again": 0, "canaries": 0}
    folder = tmp_path / "second"
    folder.mkdir()
    second = verdicts.make(replace(context, folder=folder), **given)
    assert second.metrics["cached"] == {"labelling": 360, "asked again": 30, "canaries": 40}
    for name in (VERDICTS, CANARIES, REPEATS):
        assert (folder / name).read_bytes() == (tmp_path / name).read_bytes()

    unknown = judge_work("pairwise", None, {"1": {"verdicts": folder}}, None)
    assert unknown is not None
    assert unknown.cached is None
    assert {one.cached for one in unknown.work} == {None}
    manifest = {"stage": "verdicts", "fingerprint": "x", "files": {}, "wall_seconds": 1.0, "metrics": dict(second.metrics)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    found = judge_work("pairwise", None, {"1": {"verdicts": folder}}, None)
    assert found is not None
    assert found.cached == found.calls == sum(one.cached or 0 for one in found.work) == 430


def test_rounds_are_told_apart(tmp_path: Path) -> None:
    context = context_in(tmp_path)
    labelled(context, lambda prompt, first, second: "A")
    stages = {"verdicts": context.folder}
    found = judge_work("pairwise", None, {"1": stages, "2": stages, "3": {}}, None)
    assert found is not None
    assert [one.purpose for one in found.work if one.purpose.startswith("labelling")] == [
        "labelling, round 1",
        "labelling, round 2",
    ]
    assert found.verdicts == 2 * 430


def test_where_nothing_was_judged_there_is_no_work(tmp_path: Path) -> None:
    assert judge_work("pairwise", None, {"1": {}}, None) is None
    assert judge_work(None, "rubric", {}, tmp_path) is None


def evaluated(folder: Path) -> Path:
    """The stage of an evaluation with three verdicts, one of them unreadable."""
    folder.mkdir()
    ids = {"prompt_id": "p", "first": "a", "second": "b", "judge": "rubric", "usage": Usage(calls=1, prompt_tokens=10)}
    read = [Comparison(**ids, probability_first=0.75, outcome="first")] * 2
    write_jsonl(folder / VERDICTS, [*read, Comparison(**ids, probability_first=None, outcome="unparsed")])
    return folder


def test_a_judge_of_the_evaluation_alone_is_counted_and_checked(tmp_path: Path) -> None:
    found = judge_work(None, "rubric", {"1": {}}, evaluated(tmp_path / "evaluation"))
    assert found is not None
    assert (found.kind, found.evaluation_kind, found.kinds) == ("rubric", "rubric", "rubric")
    assert (found.verdicts, found.unparsed, found.calls, found.prompt_tokens) == (3, 1, 3, 30)
    assert [one.purpose for one in found.work] == ["evaluation"]
    checks = list(checks_of(Report(run="a", seed=0, start=StartMetrics(), judge=found)))
    assert [(one.kind, one.text[:28]) for one in checks] == [("unreadable", "1 of the judge's 3 verdicts ")]
    named = judge_work(
        "pairwise", "rubric", {"1": {}}, tmp_path / "evaluation"
    )  # `judge` with ready-made rankings: it labels nothing
    assert named == found


def test_the_judges_of_labelling_and_evaluation_have_their_own_kinds(tmp_path: Path) -> None:
    context = context_in(tmp_path)
    labelled(context, lambda prompt, first, second: "A")
    found = judge_work("pairwise", "rubric", {"1": {"verdicts": context.folder}}, evaluated(tmp_path / "evaluation"))
    assert found is not None
    assert (found.kind, found.evaluation_kind, found.kinds) == ("pairwise", "rubric", "pairwise (in the evaluation rubric)")
    unevaluated = judge_work("pairwise", "rubric", {"1": {"verdicts": context.folder}}, None)
    assert unevaluated is not None
    assert unevaluated.evaluation_kind is None


def test_a_report_of_an_earlier_version_has_one_kind() -> None:
    found = JudgeMetrics.model_validate({"kind": "pairwise", "calls": 1, "unparsed": 0})
    assert (found.evaluation_kind, found.kinds) == (None, "pairwise")
