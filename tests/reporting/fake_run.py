"""A small run with every section measured, for the tests of the page, the table and the report."""

from aligndistill.evaluation.against_start import AgainstStart
from aligndistill.evaluation.audit import AuditMetrics, LabelMetrics
from aligndistill.evaluation.intervals import Mean
from aligndistill.evaluation.leading import Leading
from aligndistill.evaluation.preference_metrics import LengthGapBin, ReliabilityBin
from aligndistill.reporting.judge_metrics import JudgeMetrics, JudgeWork
from aligndistill.reporting.page import DataCounts, PageData
from aligndistill.reporting.report import (
    Check,
    ModelMetrics,
    Report,
    RewardModelMetrics,
    StartMetrics,
    StudentMetrics,
)
from aligndistill.reporting.samples import SampleAnswer, SamplePrompt


def mean(value: float, half_width: float = 0.05) -> Mean:
    return Mean(mean=value, low=value - half_width, high=value + half_width, n=96)


def student(truth: float, win_rate: float, objective: str = "dpo") -> StudentMetrics:
    return StudentMetrics(
        objective=objective,
        model=f"students/{objective}",
        truth=mean(truth),
        win_rate=mean(win_rate),
        win_rate_lc=mean(win_rate - 0.02),
        kl_nats=mean(12.3, 1.1),
        length_tokens=mean(34.2, 2),
        train_seconds=38.2,
        reward=mean(1.25),
        distinct_2=0.41,
        repetition_4=mean(0.06),
        against_start=AgainstStart(
            wins=60, ties=16, losses=20, worse=mean(0.15), truth=mean(0.1), reward=mean(0.5), length_tokens=mean(4.2, 1)
        ),
    )


def full_report() -> Report:
    return Report(
        run="quick",
        seed=3,
        start=StartMetrics(truth=mean(0.42), length_tokens=mean(30), win_rate_teacher=mean(0.2)),
        teacher=ModelMetrics(truth=mean(0.66), length_tokens=mean(31)),
        judge=JudgeMetrics(
            kind="pairwise",
            calls=3112,
            cached=1003,
            unparsed=14,
            verdicts=3112,
            prompt_tokens=9000,
            completion_tokens=3112,
            work=(
                JudgeWork(
                    purpose="labelling",
                    verdicts=3072,
                    unparsed=14,
                    calls=3072,
                    cached=1000,
                    prompt_tokens=8900,
                    completion_tokens=3072,
                ),
                JudgeWork(purpose="canaries", verdicts=40, unparsed=0, calls=40, cached=3, prompt_tokens=100, completion_tokens=40),
            ),
        ),
        audit=AuditMetrics(
            verdicts=3072,
            prompts=512,
            unparsed=mean(0.05, 0.02),
            order_flips=mean(0.06, 0.03),
            longer_wins=mean(0.61),
            longer_wins_by_chance=mean(0.5, 0.04),
            canaries=mean(0.1),
            canaries_by_kind={"other_prompt": mean(0.2)},
            labels=LabelMetrics(agreement=mean(0.7), kappa=mean(0.4), longer_wins=mean(0.58)),
        ),
        reward_model=RewardModelMetrics(accuracy=mean(0.71), longer_wins=mean(0.58), ece=mean(0.06), length_weight=1.24),
        students={"dpo": student(0.54, 0.66), "pro": student(0.68, 0.74, "pro")},
        leading=Leading(
            measure="truth",
            leader="pro",
            value=mean(0.66),
            chosen=("pro", "dpo"),
            differences={"dpo": mean(0.12)},
            group=("pro",),
        ),
        checks=(Check(kind="diversity", student="dpo", text="dpo is less diverse"),),
        warnings=("12% of answers were cut",),
        versions={"torch": "2.13.0"},
    )


def full_page() -> PageData:
    answers = tuple(SampleAnswer(author, f"answer of {author}", 0.5, -1.25) for author in ("start", "teacher", "dpo", "pro"))
    return PageData(
        report=full_report(),
        curves={"dpo": [(5, 0.7), (10, 0.6), (15, 0.5)], "pro": [(5, 3.0), (10, 2.0)]},
        lengths={"start": [3, 30, 31], "teacher": [30, 35], "dpo": [12, 80], "pro": [40]},
        samples={"pro": [SamplePrompt("What is the capital of France?", answers, "Most gained: truth +0.40", "0123456789abcdef")]},
        reliability=[
            ReliabilityBin(low=0.5, high=0.55, count=30, confidence=0.52, accuracy=0.5),
            ReliabilityBin(low=0.9, high=0.95, count=20, confidence=0.93, accuracy=0.85),
        ],
        length_gaps=[
            LengthGapBin(low=None, high=0, count=20, accuracy=0.55),
            LengthGapBin(low=0, high=10, count=25, accuracy=0.7),
            LengthGapBin(low=10, high=None, count=5, accuracy=0.9),
        ],
        counts=DataCounts(768, 96, 3072, 761, 4102, {"duplicate prompt": 12}),
        config_yaml="name: quick\nseed: 3\n",
    )
