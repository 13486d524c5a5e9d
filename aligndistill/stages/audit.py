"""audit.json: how reliable the judge is. Stops the run if a limit is exceeded."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from pathlib import Path
from statistics import fmean

from aligndistill.config.audit import AuditSettings
from aligndistill.config.data import Source
from aligndistill.data.loading import load_judgments
from aligndistill.errors import DataError, JudgeError
from aligndistill.evaluation.audit import AuditMetrics, Evidence, Labels, audit
from aligndistill.evaluation.limits import exceeded
from aligndistill.records import Canary, Candidate, Grade, Message, Prompt, Ranking, Record, Verdict, group_by_prompt, plain_prompt
from aligndistill.reporting.verdicts_page import JudgedPrompt
from aligndistill.stages.context import StageContext
from aligndistill.stages.files import (
    AUDIT,
    CANARIES,
    CANDIDATES,
    PROMPTS,
    RANKINGS,
    REPEATS,
    VERDICTS_PAGE,
    prompts_folder,
    read_verdicts,
)
from aligndistill.stages.truths import truths_of
from aligndistill.store.jsonl import read_jsonl
from aligndistill.store.stage import StageResult

RECORDED = "recorded"
"""The judge's name in verdicts from ready-made rankings."""


LOW_LABEL_MASS = 0.5


class AuditResult(Record):
    """The metrics, and the limits that they exceed with their whole interval."""

    metrics: AuditMetrics
    warnings: tuple[str, ...]
    stops: tuple[str, ...]


@dataclass(frozen=True)
class LabelledData:
    """All of a judge's labelling: the prompts, the candidates that it was shown, and its verdicts.

    Attributes:
        messages: prompt id -> its turns.
        held_out: ids of the held-out prompts.
        second: the second judge's verdicts on a sample.
    """

    messages: Mapping[str, tuple[Message, ...]]
    held_out: frozenset[str]
    candidates: Sequence[Candidate]
    verdicts: Sequence[Verdict]
    repeats: Sequence[Verdict] = ()
    canaries: Sequence[Canary] = ()
    second: Sequence[Verdict] = ()


def make(
    context: StageContext,
    *,
    settings: AuditSettings,
    prompts: Path | None = None,
    candidates: Path | None = None,
    verdicts: Path | None = None,
    rankings: Path | None = None,
    second_verdicts: Path | None = None,
    ends_rounds: bool = False,
) -> StageResult:
    """Measure the verdicts, or the ready-made rankings, and stop where a limit is exceeded.

    Args:
        ends_rounds: of a later round: the run does not stop, and nothing more is trained (see `stages/rounds.py`).

    Raises:
        JudgeError: a limit of `audit.stop` is exceeded. The metrics are written in any case.
    """
    given = {"prompts": prompts, "candidates": candidates, "verdicts": verdicts, "rankings": rankings}
    given["second_verdicts"] = second_verdicts
    labelling = read_labelling({name: folder for name, folder in given.items() if folder is not None})
    result = audit_labelling(labelling, settings)
    (context.folder / AUDIT).write_text(result.model_dump_json(indent=2) + "\n")
    if result.stops and not ends_rounds:
        raise JudgeError(
            f"the judge cannot be trusted, so nothing is trained on its verdicts: {'; '.join(result.stops)}. "
            f"Its replies are in {VERDICTS_PAGE} in the run's folder. Fix the template, use another judge, "
            "or raise the limit under audit.stop (null disables it)."
        )
    return StageResult(
        counts={"verdicts": len(labelling.verdicts), "canaries": len(labelling.canaries), "warnings": len(result.warnings)},
        metrics=result.model_dump(mode="json"),
    )


def read_labelling(folders: Mapping[str, Path]) -> LabelledData:
    """From the finished stages of the prompts, `candidates`, `verdicts` and `second_verdicts`, or from ready-made `rankings`."""
    known = prompts_folder(folders)
    if "verdicts" not in folders or known is None:
        return recorded(read_jsonl(folders["rankings"] / RANKINGS, Ranking))
    prompts = list(read_jsonl(known / PROMPTS, Prompt))
    return LabelledData(
        messages={prompt.id: prompt.messages for prompt in prompts},
        held_out=frozenset(prompt.id for prompt in prompts if prompt.split == "held_out"),
        candidates=list(read_jsonl(folders["candidates"] / CANDIDATES, Candidate)),
        verdicts=list(read_verdicts(folders["verdicts"])),
        repeats=list(read_verdicts(folders["verdicts"], REPEATS)),
        canaries=list(read_jsonl(folders["verdicts"] / CANARIES, Canary)),
        second=list(read_verdicts(folders["second_verdicts"])) if "second_verdicts" in folders else (),
    )


def recorded(rankings: Iterable[Ranking]) -> LabelledData:
    """Ready-made rankings as verdicts: a grade for each answer.

    Two rows of one prompt may be on different scales, so each row has its own id.
    """
    messages: dict[str, tuple[Message, ...]] = {}
    held_out: set[str] = set()
    candidates: list[Candidate] = []
    grades: list[Grade] = []
    for number, ranking in enumerate(rankings):
        row = f"{ranking.prompt_id}-{number}"
        messages[row] = ranking.messages
        held_out |= {row} if ranking.split == "held_out" else set()
        for response in ranking.responses:
            candidates.append(Candidate(id=response.candidate_id, prompt_id=row, text=response.text, author=response.author))
            grades.append(Grade(prompt_id=row, candidate=response.candidate_id, value=response.score, judge=RECORDED))
    return LabelledData(messages, frozenset(held_out), candidates, grades)


def audit_labelling(labelling: LabelledData, settings: AuditSettings) -> AuditResult:
    """Compare the metrics with the limits.

    Raises:
        DataError: none of the labels is for a judged answer.
    """
    if settings.labels is not None:
        labels = _labels_from(settings.labels, labelling)
    else:
        labels = _labels_by_truth(settings.truth, labelling) if settings.truth else {}
    metrics = audit(
        Evidence(
            verdicts=labelling.verdicts,
            candidates=labelling.candidates,
            repeats=labelling.repeats,
            canaries=labelling.canaries,
            labels=labels,
            own_author=settings.own_author,
            second=labelling.second,
        )
    )
    warnings, stops = (tuple(exceeded(metrics, limits.model_dump())) for limits in (settings.warn, settings.stop))
    if metrics.label_mass is not None and metrics.label_mass < LOW_LABEL_MASS:
        warnings += (
            f"the labels have a probability of only {metrics.label_mass:.2f} as the first token (median, warned of below "
            f"{LOW_LABEL_MASS:g}): the judge begins with something else",
        )
    return AuditResult(metrics=metrics, warnings=warnings, stops=stops)


def _labels_from(source: Source, labelling: LabelledData) -> Labels:
    """The human labels of pairs, joined by prompt and texts: the mean over the rows that have both answers.

    Rows are not joined with each other: scores of different rows may be on different scales, and those of a preference only say
    which of its two answers is better.
    """
    given: dict[tuple[Message, ...], dict[tuple[str, str], list[float]]] = defaultdict(lambda: defaultdict(list))
    for ranking in load_judgments(source):
        of_messages = given[ranking.messages]
        for one, other in permutations(ranking.responses, 2):
            of_messages[one.text, other.text].append(_preference(one.score, other.score))
    labels: dict[str, dict[tuple[str, str], float]] = {}
    for prompt, some in group_by_prompt(labelling.candidates).items():
        known = given.get(labelling.messages[prompt], {})
        pairs = combinations(sorted(some, key=lambda one: one.id), 2)
        found = {(one.id, other.id): fmean(known[texts]) for one, other in pairs if (texts := (one.text, other.text)) in known}
        labels |= {prompt: found} if found else {}
    if not labels:
        raise DataError(
            f"{source.path}: none of its labels are for two answers that were judged here. Labels are joined by the exact text of "
            "prompt and answer: label the file that `aligndistill judge export` wrote."
        )
    return labels


def _labels_by_truth(name: str, labelling: LabelledData) -> Labels:
    of_prompt = group_by_prompt(candidate for candidate in labelling.candidates if candidate.prompt_id in labelling.held_out)
    return {
        prompt: {(one, other): _preference(truth[one], truth[other]) for one, other in combinations(sorted(truth), 2)}
        for prompt, truth in truths_of(name, labelling.messages, of_prompt).items()
    }


def _preference(one: float, other: float) -> float:
    """P(the first is better) by two scores: 1, 1/2 or 0."""
    return 0.5 if one == other else float(one > other)


def judged_prompts(labelling: LabelledData) -> Iterator[JudgedPrompt]:
    """Every prompt with all verdicts on it, canaries last."""
    candidates = group_by_prompt(labelling.candidates)
    second = group_by_prompt(labelling.second)
    verdicts = group_by_prompt([*labelling.verdicts, *labelling.repeats])
    for prompt, messages in labelling.messages.items():
        if verdicts[prompt]:
            yield JudgedPrompt(
                plain_prompt(messages), tuple(candidates[prompt]), tuple(verdicts[prompt]), second=tuple(second[prompt]), id=prompt
            )
    for canary in labelling.canaries:
        prompt_text = plain_prompt(labelling.messages[canary.prompt_id])
        yield JudgedPrompt(prompt_text, (canary.bad, canary.reference), canary.verdicts, canary.kind, id=canary.prompt_id)
