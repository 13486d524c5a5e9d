import pytest

from aligndistill.evaluation.against_start import AgainstStart
from aligndistill.evaluation.audit import AuditMetrics
from aligndistill.evaluation.intervals import Mean
from aligndistill.evaluation.leading import Leading
from aligndistill.reporting.checks import by_kind, checks_of
from aligndistill.reporting.judge_metrics import JudgeMetrics
from aligndistill.reporting.report import Report, StartMetrics, StudentMetrics


def mean(value: float, half: float, n: int = 251) -> Mean:
    return Mean(mean=value, low=value - half, high=value + half, n=n)


FINE = StudentMetrics(
    objective="dpo",
    model="students/dpo",
    truth=mean(0.7, 0.04),
    reward=mean(1.1, 0.1),
    length_tokens=mean(16, 0.3),
    distinct_2=0.15,
    win_rate=mean(0.7, 0.04),
    win_rate_lc=mean(0.66, 0.04),
    against_start=AgainstStart(
        wins=176,
        ties=20,
        losses=55,
        worse=mean(0.05, 0.02),
        truth=mean(0.2, 0.04),
        reward=mean(1.0, 0.1),
        length_tokens=mean(1, 0.3),
    ),
)


def report(student: StudentMetrics = FINE, **more: object) -> Report:
    values = {
        "run": "r",
        "seed": 0,
        "start": StartMetrics(distinct_2=0.16, length_tokens=mean(15, 0.3)),
        "students": {"dpo": student},
    }
    return Report.model_validate({**values, **more})


def changed(beside: dict[str, object], **more: object) -> StudentMetrics:
    assert FINE.against_start is not None
    return FINE.model_copy(update={"against_start": FINE.against_start.model_copy(update=beside), **more})


def test_a_student_that_gains_everywhere_raises_nothing() -> None:
    assert list(checks_of(report())) == []
    assert list(checks_of(Report(run="r", seed=0))) == []


@pytest.mark.parametrize(
    ("student", "kind", "text"),
    [
        (
            changed({"truth": mean(0.01, 0.04)}),
            "reward_without_truth",
            "dpo: the reward rises by 1.00 [0.90, 1.10] (n = 251), the truth does not: +0.01 [-0.03, +0.05]; "
            "it may exploit errors of the reward model",
        ),
        (
            changed({"truth": None}, truth=None, win_rate=mean(0.52, 0.04)),
            "reward_without_truth",
            "dpo: the reward rises by 1.00 [0.90, 1.10] (n = 251), but the judge does not prefer its answers: "
            "win rate 0.52 [0.48, 0.56]; it may exploit errors of the reward model",
        ),
        (
            changed({"worse": Mean(mean=0.19, low=0.15, high=0.24, n=251)}),
            "worse_than_start",
            "dpo is worse than the start on 19% [15%, 24%] of 251 prompts, by the truth",
        ),
        (
            changed({"worse": Mean(mean=8 / 13, low=0.4, high=0.9, n=13)}),
            "worse_than_start",
            "dpo is worse than the start on 8 of 13 prompts, by the truth",
        ),
        (changed({}, distinct_2=0.08), "diversity", "dpo is less diverse: distinct-2 falls from 0.16 to 0.08 (-50%)"),
        (
            changed({"length_tokens": mean(3, 0.3)}, length_tokens=mean(18, 0.3)),
            "length",
            "dpo writes longer answers than the start: 18.0 tokens, not 15.0 (+20%); win rate 0.70 [0.66, 0.74], "
            "at equal length 0.66 [0.62, 0.70]",
        ),
        (
            changed({"length_tokens": mean(-3, 0.3)}, length_tokens=mean(12, 0.3), win_rate_lc=None),
            "length",
            "dpo writes shorter answers than the start: 12.0 tokens, not 15.0 (-20%); win rate 0.70 [0.66, 0.74], "
            "at equal length unknown",
        ),
        (changed({"unreadable": 4}), "unreadable", "dpo: 4 of 255 comparisons with the start have no readable verdict"),
    ],
)
def test_what_looks_good_for_the_wrong_reason(student: StudentMetrics, kind: str, text: str) -> None:
    assert [(one.kind, one.text) for one in checks_of(report(student))] == [(kind, text)]


@pytest.mark.parametrize(
    "student",
    [
        changed({"worse": mean(0.099, 0.02)}),
        changed({}, distinct_2=0.112),  # 70% of 0.16
        changed({"length_tokens": mean(2.9, 0.3)}, length_tokens=mean(17.9, 0.3)),
        changed({"reward": mean(0.05, 0.1), "truth": mean(0.0, 0.1)}),
        changed({"length_tokens": mean(4, 5)}, length_tokens=mean(19, 5)),  # few prompts: the change may be chance
    ],
)
def test_below_the_thresholds_nothing_is_said(student: StudentMetrics) -> None:
    assert list(checks_of(report(student))) == []


def test_the_highest_reward_with_certainly_lower_truth() -> None:
    other = changed({}, reward=mean(1.5, 0.1), truth=mean(0.6, 0.04))
    lead = Leading(
        measure="truth",
        leader="dpo",
        value=mean(0.7, 0.04),
        chosen=("dpo", "dpo"),
        differences={"ppo": mean(0.1, 0.05)},
        group=("dpo",),
    )
    found = list(checks_of(report(students={"dpo": FINE, "ppo": other}, leading=lead)))
    assert [(one.kind, one.student) for one in found] == [("reward_without_truth", "ppo")]
    assert "ppo has the highest reward of the students (1.50), but its truth, 0.60 [0.56, 0.64], is clearly lower" in found[0].text
    together = lead.model_copy(update={"group": ("dpo", "ppo")})
    assert list(checks_of(report(students={"dpo": FINE, "ppo": other}, leading=together))) == []


def test_a_judge_that_likes_length_is_named_where_answers_are_longer() -> None:
    audit = AuditMetrics(verdicts=9, prompts=9, longer_wins=mean(0.63, 0.02), longer_wins_by_chance=mean(0.5, 0.02))
    longer = changed({"length_tokens": mean(3, 0.3)}, length_tokens=mean(18, 0.3))
    said = "The judge prefers the longer answer in 63% [61%, 65%] of its choices (by chance 50% [48%, 52%])"
    assert [one.text for one in checks_of(report(longer, audit=audit))][1:] == [said]
    assert list(checks_of(report(audit=audit))) == []


@pytest.mark.parametrize(("unparsed", "found"), [(9, 0), (10, 1)])
def test_unreadable_verdicts_from_one_per_cent_on(unparsed: int, found: int) -> None:
    judge = JudgeMetrics(kind="pairwise", calls=1000, unparsed=unparsed, verdicts=1000)
    assert len(list(checks_of(report(judge=judge)))) == found


def test_checks_are_grouped_under_titles() -> None:
    student = changed({"worse": mean(0.2, 0.02), "unreadable": 1})
    groups = by_kind(list(checks_of(report(students={"a": student, "b": student}))))
    assert [(title, [one.student for one in some]) for title, some in groups] == [
        ("Worse than the start on many prompts", ["a", "b"]),
        ("Unreadable or missing verdicts", ["a", "b"]),
    ]
