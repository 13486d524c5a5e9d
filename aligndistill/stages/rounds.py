"""progress.json: a round's promoted student against the model that the round started from. Whether another round follows."""

from collections.abc import Iterator, Mapping, Sequence
from os.path import relpath
from pathlib import Path
from statistics import fmean

from aligndistill.config.rounds import RoundStop
from aligndistill.config.run import Evaluation
from aligndistill.evaluation.intervals import bootstrap_mean
from aligndistill.evaluation.length_control import controlled_win_rate
from aligndistill.evaluation.wins import by_prompt, compared, win_rates
from aligndistill.processes.ranks import is_main_process
from aligndistill.records import Answer
from aligndistill.reporting.report import RoundMetrics
from aligndistill.stages.context import ModelSource, StageContext
from aligndistill.stages.evaluation import answer_ids, answers_task, read_answers
from aligndistill.stages.files import PAIRS, PROGRESS, RANKINGS, TIES, held_out_prompts
from aligndistill.stages.verdicts import ask, require_readable
from aligndistill.store.stage import ENDED, StageResult, may_end, together


@together
def compare(
    context: StageContext,
    *,
    evaluation: Evaluation,
    round: str,
    models: Mapping[str, ModelSource],
    prompts: Path,
    rankings: Path,
    student: Path,
    answers: Mapping[str, Path],
    seed: int,
) -> StageResult:
    """Compare the promoted student (`student` of `answers`) with the round's start (`previous`) and the run's (`start`).

    The folder points to the student's model: the next round reads it as its start. The questions to the judge are those of the
    evaluation, so neither asks what the other has asked.
    """
    judge = evaluation.judge
    assert judge is not None and judge != "same", "the config's rules require a judge, and a resolved config names it"
    messages = {prompt.id: prompt.messages for prompt in held_out_prompts(prompts, evaluation.prompts)}
    by_author = read_answers(answers)
    ours, theirs = by_author["student"], by_author["previous"]
    both = {"student": ours, "previous": theirs}
    tasks = [answers_task(prompt, messages[prompt], both, ["previous"]) for prompt in messages]
    tasks = [task for task in tasks if task.candidates]
    verdicts = ask(context, judge, models, tasks, seed, "comparisons")
    require_readable(context, verdicts, "comparisons")
    if not is_main_process():
        return StageResult()
    found = compared(by_prompt(verdicts), answer_ids(ours), answer_ids(theirs))
    kl = [value for many in ours.values() if (value := _mean_kl(many)) is not None]
    controlled = None
    if found and evaluation.length_control:
        differences = [ours[one.prompt][one.sample].length_tokens - theirs[one.prompt][one.sample].length_tokens for one in found]
        controlled = controlled_win_rate([one.probability for one in found], differences, [one.prompt for one in found]).win_rate
    progress = RoundMetrics(
        round=round,
        win_rate=bootstrap_mean(win_rates(found)) if found else None,
        win_rate_lc=controlled,
        length_growth=_length(ours) / _length(by_author["start"]),
        kl_nats=bootstrap_mean(kl) if kl else None,
        pairs=sum(1 for _ in (rankings / PAIRS).open("rb")),
        ended=None,
    )
    (context.folder / PROGRESS).write_text(progress.model_dump_json(indent=2) + "\n")
    _point(student, context.folder)
    return StageResult(counts={"prompts": len(tasks)})


@may_end
def stop(context: StageContext, *, settings: RoundStop, progress: Path) -> StageResult:
    """Decide whether another round follows. Its stages wait for this one without reading it: a new limit rebuilds none of them."""
    measured = RoundMetrics.model_validate_json((progress / PROGRESS).read_bytes())
    reason = reason_to_end(measured, settings)
    return StageResult(metrics={ENDED: reason} if reason else {})


def reason_to_end(measured: RoundMetrics, settings: RoundStop) -> str | None:
    """The first rule that ends the rounds, in words; None if none does.

    The win rate is the length-controlled one where it could be measured.
    """
    win_rate = measured.win_rate_lc or measured.win_rate
    if settings.no_gain and win_rate is not None and win_rate.low <= 0.5:
        interval = f"{win_rate.mean:.2f} [{win_rate.low:.2f}, {win_rate.high:.2f}]"
        return f"no_gain: the win rate over the previous round is {interval}, so a gain is not certain"
    growth, limit = measured.length_growth, settings.length_growth
    if limit is not None and growth > limit:
        return f"length_growth: answers are {growth:.2f} times as long as the start's (limit {limit:g})"
    if settings.kl_budget is not None and measured.kl_nats is not None and measured.kl_nats.mean > settings.kl_budget:
        return f"kl_budget: the KL from the start is {measured.kl_nats.mean:.1f} nats per answer (limit {settings.kl_budget:g})"
    if measured.pairs < settings.min_pairs:
        return f"min_pairs: the round had {measured.pairs} training pairs (limit {settings.min_pairs})"
    return None


def join(context: StageContext, *, before: Path, latest: Path) -> StageResult:
    """The rankings of several rounds as one set."""
    lines = {}
    for name in (RANKINGS, PAIRS, TIES):
        with (context.folder / name).open("wb") as file:
            lines[name] = sum(1 for line in _lines(before / name, latest / name) if file.write(line))
    return StageResult(counts={"rankings": lines[RANKINGS], "pairs": lines[PAIRS]})


def _lines(*paths: Path) -> Iterator[bytes]:
    for path in paths:
        with path.open("rb") as file:
            yield from file


def _point(student: Path, folder: Path) -> None:
    """Write the pointer to a student's model, relative to the folder, so that a store can be moved."""
    from aligndistill.models.load import MODEL_JSON, ModelPointer

    pointer = ModelPointer.model_validate_json((student / MODEL_JSON).read_text())
    inside = {"path": pointer.path, "adapter": pointer.adapter}
    moved = {name: relpath(student / path, folder) for name, path in inside.items() if path and (student / path).is_dir()}
    pointer.model_copy(update=moved).write(folder)


def _mean_kl(answers: Sequence[Answer]) -> float | None:
    known = [one.kl_nats for one in answers if one.kl_nats is not None]
    return fmean(known) if known else None


def _length(answers: Mapping[str, Sequence[Answer]]) -> float:
    """The mean length over prompts, tokens; at least one token, so that empty answers can be compared with."""
    return max(1.0, fmean(fmean(one.length_tokens for one in many) for many in answers.values()))
