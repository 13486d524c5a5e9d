"""How much the judge did, for what: labelling, repeats, canaries, evaluation. Counted from the files of verdicts."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from aligndistill.records import Canary
from aligndistill.reporting.judge_metrics import JudgeMetrics, JudgeWork
from aligndistill.stages.files import CANARIES, REPEATS, VERDICTS, read_verdicts
from aligndistill.stages.verdicts import ASKED_AGAIN, CACHED, IN_EVALUATION, KNOWN_BAD, LABELLING, SECOND, judge_metrics
from aligndistill.store.artifacts import read_manifest
from aligndistill.store.jsonl import read_jsonl


def judge_work(
    labelling: str | None, comparing: str | None, rounds: Mapping[str, Mapping[str, Path]], evaluation: Path | None
) -> JudgeMetrics | None:
    """The work with its sums; None if nothing was judged.

    Args:
        labelling, comparing: the kinds of the judge that labels, and of the one that compares held-out answers; None without one.
        rounds: the stages of each round by name; those without `verdicts` are skipped.
        evaluation: the folder of the evaluation, if there is one.
    """
    work = [one for one in _work(rounds, evaluation) if one.verdicts]
    if not work:
        return None
    compared = work[-1].purpose == IN_EVALUATION
    kind = comparing if compared and len(work) == 1 else labelling
    assert kind is not None, "verdicts without a judge"
    names = ("calls", "unparsed", "verdicts", "prompt_tokens", "completion_tokens")
    sums = {name: sum(getattr(one, name) for one in work) for name in names}
    known = [one.cached for one in work if one.cached is not None]
    sums["cached"] = sum(known) if len(known) == len(work) else None
    return JudgeMetrics(kind=kind, evaluation_kind=comparing if compared else None, work=tuple(work), **sums)


def _work(rounds: Mapping[str, Mapping[str, Path]], evaluation: Path | None) -> Iterator[JudgeWork]:
    judged = {name: stages["verdicts"] for name, stages in rounds.items() if "verdicts" in stages}
    for name, folder in judged.items():
        of_round = f", round {name}" if len(judged) > 1 else ""
        canaries = read_jsonl(folder / CANARIES, Canary)
        of_purpose = {
            LABELLING: (folder, read_verdicts(folder)),
            ASKED_AGAIN: (folder, read_verdicts(folder, REPEATS)),
            KNOWN_BAD: (folder, (verdict for canary in canaries for verdict in canary.verdicts)),
        }
        if (second := rounds[name].get("second_verdicts")) is not None:
            of_purpose[SECOND] = second, read_verdicts(second)
        for purpose, (stage, verdicts) in of_purpose.items():
            yield JudgeWork(purpose=f"{purpose}{of_round}", cached=_cached(stage, purpose), **judge_metrics(verdicts))
    if evaluation is not None and (evaluation / VERDICTS).is_file():
        cached = _cached(evaluation, IN_EVALUATION)
        yield JudgeWork(purpose=IN_EVALUATION, cached=cached, **judge_metrics(read_verdicts(evaluation)))


def _cached(folder: Path, purpose: str) -> int | None:
    """How many calls of a stage were answered from the cache; None where its manifest does not say."""
    manifest = read_manifest(folder)
    found: int | None = manifest.metrics.get(CACHED, {}).get(purpose) if manifest else None
    return found
