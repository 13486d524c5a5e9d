"""The judge's work, counted by purpose; the sums are those of the table."""

from pathlib import Path

from aligndistill.stages.judge_work import judge_work
from tests.stages.labelled import context_in, labelled


def test_each_purpose_is_counted_and_summed(tmp_path: Path) -> None:
    context = context_in(tmp_path)
    labelled(context, lambda prompt, first, second: "A" if first > second else "B")
    found = judge_work("pairwise", {"1": {"verdicts": context.folder}}, None)
    assert found is not None
    # 60 prompts with 3 pairs in both orders; 20 canaries with one pair; 5 prompts asked again.
    assert [(one.purpose, one.verdicts) for one in found.work] == [("labelling", 360), ("asked again", 30), ("canaries", 40)]
    assert (found.verdicts, found.calls, found.unparsed) == (430, 430, 0)
    assert found.completion_tokens == sum(one.completion_tokens for one in found.work)


def test_rounds_are_told_apart(tmp_path: Path) -> None:
    context = context_in(tmp_path)
    labelled(context, lambda prompt, first, second: "A")
    stages = {"verdicts": context.folder}
    found = judge_work("pairwise", {"1": stages, "2": stages, "3": {}}, None)
    assert found is not None
    assert [one.purpose for one in found.work if one.purpose.startswith("labelling")] == [
        "labelling, round 1",
        "labelling, round 2",
    ]
    assert found.verdicts == 2 * 430


def test_where_nothing_was_judged_there_is_no_work(tmp_path: Path) -> None:
    assert judge_work("pairwise", {"1": {}}, None) is None
    assert judge_work(None, {}, tmp_path) is None
