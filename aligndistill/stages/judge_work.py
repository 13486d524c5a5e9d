"""How much the judge did, for what: labelling, repeats, canaries, evaluation. Counted from the files of verdicts."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from aligndistill.records import Canary, Verdict
from aligndistill.reporting.report import JudgeMetrics, JudgeWork
from aligndistill.stages.files import CANARIES, REPEATS, VERDICTS, read_verdicts
from aligndistill.stages.verdicts import judge_metrics
from aligndistill.store.jsonl import read_jsonl


def judge_work(kind: str | None, rounds: Mapping[str, Mapping[str, Path]], evaluation: Path | None) -> JudgeMetrics | None:
    """The work with its sums; None if nothing was judged.

    Args:
        kind: the judge's kind; None without one.
        rounds: the stages of each round by name; those without `verdicts` are skipped.
        evaluation: the folder of the evaluation, if there is one.
    """
    work = [one for one in _work(rounds, evaluation) if one.verdicts]
    if kind is None or not work:
        return None
    names = ("calls", "unparsed", "verdicts", "prompt_tokens", "completion_tokens")
    return JudgeMetrics(kind=kind, work=tuple(work), **{name: sum(getattr(one, name) for one in work) for name in names})


def _work(rounds: Mapping[str, Mapping[str, Path]], evaluation: Path | None) -> Iterator[JudgeWork]:
    judged = {name: stages["verdicts"] for name, stages in rounds.items() if "verdicts" in stages}
    for name, folder in judged.items():
        of_round = f", round {name}" if len(judged) > 1 else ""
        yield _counted(f"labelling{of_round}", read_verdicts(folder))
        yield _counted(f"asked again{of_round}", read_verdicts(folder, REPEATS))
        canaries = read_jsonl(folder / CANARIES, Canary)
        yield _counted(f"canaries{of_round}", (verdict for canary in canaries for verdict in canary.verdicts))
        if (second := rounds[name].get("second_verdicts")) is not None:
            yield _counted(f"second judge{of_round}", read_verdicts(second))
    if evaluation is not None and (evaluation / VERDICTS).is_file():
        yield _counted("evaluation", read_verdicts(evaluation))


def _counted(purpose: str, verdicts: Iterable[Verdict]) -> JudgeWork:
    return JudgeWork(purpose=purpose, **judge_metrics(verdicts))
