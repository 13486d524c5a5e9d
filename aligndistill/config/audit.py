"""The schema of the audit of a judge and of its limits."""

from typing import Annotated

from pydantic import Field

from aligndistill.config.data import Source
from aligndistill.config.judges import Judge
from aligndistill.config.section import HashedIfSet, PluginName, Section


class AuditWarn(Section):
    """Rates above which the report warns; null disables a check. A rate exceeds its limit if its whole 95 % interval is above.

    Attributes:
        unparsed: verdicts that could not be read.
        order_flips: pairs whose winner changes with the order.
        first_position: decisions for the answer shown first (or second), whichever is more.
        longer_wins: decisions for the longer answer.
        canaries: known-bad answers that are preferred to a candidate.
        inconsistent: questions asked twice and answered differently.
        disagreement: labelled pairs on which the judge and the labels differ.
        second_disagreement: pairs of the sample that the second judge decides otherwise.
    """

    unparsed: float | None = Field(default=0.05, ge=0, lt=1)
    order_flips: float | None = Field(default=0.3, ge=0, lt=1)
    first_position: float | None = Field(default=0.6, ge=0.5, lt=1)
    longer_wins: float | None = Field(default=0.7, ge=0, lt=1)
    canaries: float | None = Field(default=0.1, ge=0, lt=1)
    inconsistent: float | None = Field(default=0.2, ge=0, lt=1)
    disagreement: float | None = Field(default=0.4, ge=0, lt=1)
    second_disagreement: Annotated[float | None, HashedIfSet] = Field(default=0.4, ge=0, lt=1)


class AuditStop(AuditWarn):
    """Rates above which the run stops before anything is trained; the keys are those of `warn`."""

    unparsed: float | None = Field(default=0.5, ge=0, lt=1)
    order_flips: float | None = Field(default=None, ge=0, lt=1)
    first_position: float | None = Field(default=None, ge=0.5, lt=1)
    longer_wins: float | None = Field(default=None, ge=0, lt=1)
    canaries: float | None = Field(default=0.7, ge=0, lt=1)
    inconsistent: float | None = Field(default=None, ge=0, lt=1)
    disagreement: float | None = Field(default=None, ge=0, lt=1)
    second_disagreement: Annotated[float | None, HashedIfSet] = Field(default=None, ge=0, lt=1)


class AuditProbes(Section):
    """Additional questions to the judge that measure its reliability.

    Attributes:
        canaries: how many known-bad answers are added to the labelling, at most one per prompt. They are not used in rankings.
        repeats: how many prompts are judged a second time, with another seed.
    """

    canaries: int = Field(default=20, ge=0)
    repeats: int = Field(default=5, ge=0)


class SecondJudge(Section):
    """Another judge, the same in every round, that is asked about a small sample of the pairs that the judge decided.

    Attributes:
        prompts: how many held-out prompts the sample has, the same in every round, with one pair each.
    """

    judge: Judge
    prompts: int = Field(default=50, gt=0)


class Audit(Section):
    """Measurements of the judge's reliability, made before anything is trained on its verdicts.

    Attributes:
        labels: human labels of the same answers: preferences or rankings, joined by prompt and text.
        second: a fixed judge to compare it with, in every round.
    """

    probes: AuditProbes = AuditProbes()
    labels: Source | None = None
    second: SecondJudge | None = None
    warn: AuditWarn = AuditWarn()
    stop: AuditStop = AuditStop()


class AuditSettings(Section):
    """The settings of the audit, collected from several sections.

    Attributes:
        truth: the evaluation's truth function; it is called on held-out prompts only, as in the evaluation.
        own_author: the author whose model is also the judge.
    """

    labels: Source | None = None
    warn: AuditWarn = AuditWarn()
    stop: AuditStop = AuditStop()
    truth: PluginName | None = None
    own_author: str | None = None
