"""What the report says of each round: its promoted student, its judge, and how hard its prompts were."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from aligndistill.evaluation.intervals import Mean, bootstrap_mean
from aligndistill.preferences.difficulty import Difficulty
from aligndistill.records import Prompt
from aligndistill.reporting.report import NewPrompts, RoundMetrics
from aligndistill.reporting.written_data import ElicitationMetrics
from aligndistill.stages.audit import AuditResult
from aligndistill.stages.files import AUDIT, ELICITATION, PROGRESS, PROMPTS
from aligndistill.stages.weak_prompts import training_difficulties
from aligndistill.store.artifacts import read_manifest
from aligndistill.store.jsonl import read_jsonl
from aligndistill.store.stage import ENDED

OF_AUDIT = ("canaries", "own_answers_win", "own_answers_win_by_labels", "second_agreement")
"""The figures of a round's audit that the report has beside those of other rounds, by their names in both."""


def round_metrics(
    progress: Mapping[str, Path],
    stops: Mapping[str, Path],
    orders: Mapping[str, Path],
    rounds: Mapping[str, Mapping[str, Path]],
    promoted: Mapping[str, str],
    elicited: Mapping[str, Path],
) -> Iterator[RoundMetrics]:
    """Of each round with a promoted student. The arguments are those of the report (`stages/report.py`)."""
    for name, folder in progress.items():
        following = [ends[key] for ends, key in ((stops, name), (orders, str(int(name) + 1))) if key in ends]
        ended = next((reason for one in following if (reason := _ended(one)) is not None), None)
        audit = AuditResult.model_validate_json((rounds[name]["audit"] / AUDIT).read_bytes()).metrics
        known = training_difficulties(rounds[name]["rankings"])
        accept_rate, difficulty = means(known.values())
        written = [one for one in elicited.values() if read_elicitation(one).round == name]
        added = {
            "student": promoted.get(name),
            "ended": ended,
            **{one: getattr(audit, one) for one in OF_AUDIT},
            "agreement": audit.labels.agreement if audit.labels else None,
            "accept_rate": accept_rate,
            "difficulty": difficulty,
            "new_prompts": new_prompts(rounds[name]["prompts"], written, known) if written else None,
        }
        yield RoundMetrics.model_validate_json((folder / PROGRESS).read_bytes()).model_copy(update=added)


def read_elicitation(folder: Path) -> ElicitationMetrics:
    """What a step wrote."""
    return ElicitationMetrics.model_validate_json((folder / ELICITATION).read_bytes())


def new_prompts(prompts: Path, written: Sequence[Path], known: Mapping[str, Difficulty]) -> NewPrompts:
    """The prompts of a round that models wrote for it, beside its other training prompts.

    Args:
        prompts: of the round.
        written: the steps in which they were written.
        known: the difficulty of each training prompt that has one.
    """
    new = {one for step in written for one in _new_of(step)}
    kept = {one.id for one in read_jsonl(prompts / PROMPTS, Prompt)} & new
    of_new, of_others = (means(one for name, one in known.items() if (name in kept) == wanted) for wanted in (True, False))
    return NewPrompts(
        prompts=len(kept),
        accept_rate=of_new[0],
        difficulty=of_new[1],
        accept_rate_of_others=of_others[0],
        difficulty_of_others=of_others[1],
    )


def _new_of(step: Path) -> list[str]:
    """The ids of the prompts that a step added: the last of its file."""
    ids = [one.id for one in read_jsonl(step / PROMPTS, Prompt)]
    return ids[len(ids) - read_elicitation(step).kept :]


def means(difficulties: Iterable[Difficulty]) -> tuple[Mean | None, Mean | None]:
    """The mean accept rate and the mean difficulty, over prompts; None of none."""
    found = list(difficulties)
    if not found:
        return None, None
    return bootstrap_mean([one.accept_rate for one in found]), bootstrap_mean([one.difficulty for one in found])


def _ended(folder: Path) -> str | None:
    """Why no round follows, by a stage that may end them."""
    manifest = read_manifest(folder)
    assert manifest is not None, f"{folder} is not finished"
    reason: str | None = manifest.metrics.get(ENDED)
    return reason
