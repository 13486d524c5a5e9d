"""What a run's judges did, as `report.json` has it."""

from aligndistill.records import Record


class JudgeWork(Record):
    """What a judge did for one purpose in one round. `cached`: calls answered from the cache; None where nothing counted them."""

    purpose: str
    verdicts: int
    unparsed: int
    calls: int
    cached: int | None = None
    prompt_tokens: int
    completion_tokens: int


class JudgeMetrics(Record):
    """The judges' kinds, and their numbers of calls, cached calls, verdicts, unreadable replies and tokens: the sums over `work`.

    Attributes:
        kind: of the judge that labelled or, where none did, of the one that compared the held-out answers.
        evaluation_kind: of the one that compared the held-out answers; None where none did, and in reports of earlier versions.
    """

    kind: str
    evaluation_kind: str | None = None
    calls: int
    cached: int | None = None
    unparsed: int
    verdicts: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    work: tuple[JudgeWork, ...] = ()

    @property
    def kinds(self) -> str:
        """The kind, and that of the evaluation's judge where it is another."""
        other = self.evaluation_kind
        return self.kind if other in (None, self.kind) else f"{self.kind} (in the evaluation {other})"
