"""The schema of what is measured of a judge, and of what may not be exceeded."""

from pydantic import Field

from aligndistill.config.data import Source
from aligndistill.config.section import PluginName, Section


class AuditWarn(Section):
    """Rates above which the report warns; null looks at none. A rate counts when its whole 95 % interval lies above.

    Attributes:
        unparsed: verdicts that could not be read.
        order_flips: pairs whose winner changes with the order.
        first_position: decisions for the answer shown first (or second).
        longer_wins: decisions for the longer answer.
        canaries: known-bad answers that are preferred to a candidate.
        inconsistent: questions asked twice that are answered differently.
        disagreement: labelled pairs on which judge and labels differ.
    """

    unparsed: float | None = Field(default=0.05, ge=0, lt=1)
    order_flips: float | None = Field(default=0.3, ge=0, lt=1)
    first_position: float | None = Field(default=0.6, ge=0.5, lt=1)
    longer_wins: float | None = Field(default=0.7, ge=0, lt=1)
    canaries: float | None = Field(default=0.1, ge=0, lt=1)
    inconsistent: float | None = Field(default=0.2, ge=0, lt=1)
    disagreement: float | None = Field(default=0.4, ge=0, lt=1)


class AuditStop(AuditWarn):
    """Rates above which the run stops before anything is trained; the keys are those of `warn`."""

    unparsed: float | None = Field(default=0.5, ge=0, lt=1)
    order_flips: float | None = Field(default=None, ge=0, lt=1)
    first_position: float | None = Field(default=None, ge=0.5, lt=1)
    longer_wins: float | None = Field(default=None, ge=0, lt=1)
    canaries: float | None = Field(default=0.7, ge=0, lt=1)
    inconsistent: float | None = Field(default=None, ge=0, lt=1)
    disagreement: float | None = Field(default=None, ge=0, lt=1)


class AuditProbes(Section):
    """What is asked of the judge besides the labels, to see how far it can be trusted.

    Attributes:
        canaries: known-bad answers mixed into the labelling, at most one for a prompt. They never enter rankings.
        repeats: prompts whose questions are asked a second time, with another seed.
    """

    canaries: int = Field(default=20, ge=0)
    repeats: int = Field(default=5, ge=0)


class Audit(Section):
    """How far the judge can be trusted: what is measured of its verdicts before anything is trained on them.

    Attributes:
        labels: what people say of the same answers: a file of preferences or rankings, joined by prompt and text.
    """

    probes: AuditProbes = AuditProbes()
    labels: Source | None = None
    warn: AuditWarn = AuditWarn()
    stop: AuditStop = AuditStop()


class AuditSettings(Section):
    """What verdicts are measured by, put together from several sections.

    Attributes:
        truth: the evaluation's truth function; it is shown held-out prompts only, here as there.
        own_author: the author whose model judges.
    """

    labels: Source | None = None
    warn: AuditWarn = AuditWarn()
    stop: AuditStop = AuditStop()
    truth: PluginName | None = None
    own_author: str | None = None
