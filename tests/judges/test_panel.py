import math

import pytest

from aligndistill.chat.scripted import ScriptedChat
from aligndistill.evaluation.audit import Evidence, audit
from aligndistill.judges.function import FunctionJudge
from aligndistill.judges.pairwise import PairwiseJudge
from aligndistill.judges.panel import Combine, Member, PanelJudge, combined
from aligndistill.judges.protocol import Judge, Judged, Task
from aligndistill.judges.templates import Template
from aligndistill.preferences.scores import first_position_logit, scores_from_comparisons
from aligndistill.records import Comparison, Grade
from tests.judges.tasks import task

LENGTH = FunctionJudge("length", lambda prompt, responses: [float(len(response)) for response in responses])
SHORT = FunctionJudge("short", lambda prompt, responses: [-float(len(response)) for response in responses])


def chat_judge(name: str, reply: str) -> PairwiseJudge:
    return PairwiseJudge(name, ScriptedChat(lambda *_: reply), Template("{prompt}|{first}|{second}"))


def comparisons(judged: Judged) -> list[Comparison]:
    assert all(isinstance(verdict, Comparison) for verdict in judged.verdicts)
    return [verdict for verdict in judged.verdicts if isinstance(verdict, Comparison)]


def longer_wins(asked: Task, judge: Judge) -> float | None:
    """P(second candidate of the task beats the first)."""
    (judged,) = judge.judge([asked])
    (verdict,) = comparisons(judged)
    assert verdict.probability_first is not None
    return verdict.probability_first if verdict.first == asked.candidates[1].id else 1 - verdict.probability_first


@pytest.mark.parametrize(
    ("combine", "expected"),
    [("mean", (2 * 0.9 + 0.4) / 3), ("vote", 2 / 3), ("product", 1 / (1 + (1 / 9) ** 2 * (0.6 / 0.4)))],
)
def test_three_ways_to_put_probabilities_together(combine: Combine, expected: float) -> None:
    assert combined([(0.9, 2.0), (0.4, 1.0)], combine) == pytest.approx(expected)
    assert combined([], combine) is None


@pytest.mark.parametrize("combine", ["mean", "vote", "product"])
def test_what_combines_is_symmetric(combine: Combine) -> None:
    given = [(0.9, 2.0), (0.4, 1.0), (1.0, 0.5)]
    both = combined(given, combine), combined([(1 - p, weight) for p, weight in given], combine)
    assert sum(p for p in both if p is not None) == pytest.approx(1)


def test_no_member_overrules_all_others_in_a_product() -> None:
    assert combined([(1.0, 1.0), (0.0, 1.0)], "product") == pytest.approx(0.5)
    outvoted = combined([(0.0, 1.0), (0.95, 1.0), (0.95, 1.0)], "product")
    assert outvoted is not None
    assert 0.5 < outvoted < 1


def test_grades_are_read_as_logits_at_the_members_temperature() -> None:
    asked = task("why", "x", "yyyyy")  # 4 longer
    panel = PanelJudge("panel", [Member(LENGTH, temperature=2.0), Member(SHORT, temperature=8.0)])
    assert longer_wins(asked, panel) == pytest.approx((1 / (1 + math.exp(-2)) + 1 / (1 + math.exp(0.5))) / 2)


def test_grades_and_comparisons_together_the_position_averaged_out_and_all_members_stored() -> None:
    asked = task("why", "x", "yyyyy")
    panel = PanelJudge("panel", [Member(LENGTH), Member(chat_judge("first", "A"), weight=3.0)])
    assert longer_wins(asked, panel) == pytest.approx((1 / (1 + math.exp(-4)) + 3 * 0.5) / 4)
    (judged,) = panel.judge([asked])
    (verdict,) = comparisons(judged)
    assert verdict.judge == "panel"
    assert [(member.kind, member.judge) for member in verdict.members] == [
        ("grade", "length"),
        ("grade", "length"),
        ("comparison", "first"),
        ("comparison", "first"),
    ]
    assert [member.reply for member in verdict.members] == [None, None, "A", "A"]


def test_costs_are_counted_once_although_a_grade_is_on_several_pairs() -> None:
    panel = PanelJudge("panel", [Member(LENGTH), Member(chat_judge("first", "A"))])
    (judged,) = panel.judge([task("why", "x", "yy", "zzz")])
    assert len(judged.verdicts) == 3
    assert sum(verdict.usage.calls for verdict in judged.verdicts) == 1 + 6


def test_an_unreadable_member_abstains_and_a_panel_without_verdicts_is_unparsed() -> None:
    asked = task("why", "x", "yyyyy")
    assert longer_wins(asked, PanelJudge("panel", [Member(LENGTH), Member(chat_judge("mute", "hm"))])) == pytest.approx(
        1 / (1 + math.exp(-4))
    )
    (judged,) = PanelJudge("panel", [Member(chat_judge("mute", "hm")), Member(chat_judge("mute too", "?"))]).judge([asked])
    (verdict,) = comparisons(judged)
    assert (verdict.outcome, verdict.probability_first, len(verdict.members)) == ("unparsed", None, 4)


def test_every_task_comes_once_and_only_named_pairs_are_compared() -> None:
    panel = PanelJudge("panel", [Member(LENGTH), Member(SHORT)])
    whole = task("three", "x", "yy", "zzz")
    some = Task(whole.prompt_id, whole.messages, whole.candidates, pairs=((2, 0),))
    judged = {one.prompt_id: one for one in panel.judge([task("one", "x"), task("none"), some])}
    assert sorted(len(one.verdicts) for one in judged.values()) == [0, 0, 1]
    (verdict,) = comparisons(judged[some.prompt_id])
    assert {verdict.first, verdict.second} == {whole.candidates[0].id, whole.candidates[2].id}


def test_a_panel_ranks_and_has_no_place_to_prefer() -> None:
    asked = task("why", "x", "yy", "zzz")
    (judged,) = PanelJudge("panel", [Member(LENGTH, weight=2.0), Member(SHORT)]).judge([asked])
    scores = scores_from_comparisons(comparisons(judged))
    assert sorted(scores, key=lambda one: scores[one]) == [candidate.id for candidate in asked.candidates]
    assert first_position_logit(comparisons(judged)) == 0.0


def test_the_audit_looks_at_the_members() -> None:
    tasks = [task(f"why {number}", "x", "yyyyy", "zzz") for number in range(10)]
    panel = PanelJudge("panel", [Member(LENGTH), Member(SHORT), Member(chat_judge("first", "A"))])
    verdicts = [verdict for judged in panel.judge(tasks) for verdict in judged.verdicts]
    restored = [Comparison.model_validate_json(verdict.model_dump_json()) for verdict in verdicts]  # type: ignore[union-attr]
    metrics = audit(Evidence(restored, [candidate for one in tasks for candidate in one.candidates]))
    assert metrics.order_flips is not None
    assert metrics.order_flips.mean == 1.0  # of the member that was shown an order
    assert metrics.first_position is not None
    assert metrics.first_position.mean == 1.0
    assert metrics.panel_agreement is not None
    assert metrics.panel_agreement.mean == 0.0  # one takes the longer, one the shorter, one is always in doubt
    assert metrics.unparsed is not None
    assert metrics.unparsed.n == 10
    assert any(isinstance(member, Grade) for verdict in restored for member in verdict.members)
