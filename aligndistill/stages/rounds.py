"""progress.json: a round's promoted student against the model that the round started from. Whether another round follows, and
whether a later round has an order to learn from.
"""

import heapq
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Literal

from aligndistill.config.rounds import RoundStop
from aligndistill.config.run import Evaluation
from aligndistill.data.trl_pairs import pairs_of
from aligndistill.evaluation.wins import by_prompt, compared
from aligndistill.processes.ranks import is_main_process
from aligndistill.records import Answer, Ranking, content_hash
from aligndistill.reporting.report import RoundMetrics
from aligndistill.stages.audit import AuditResult
from aligndistill.stages.context import ModelSource, StageContext
from aligndistill.stages.evaluation import answer_ids, answers_task, controlled, mean_over_prompts, read_answers, win_rate
from aligndistill.stages.files import AUDIT, PAIRS, PROGRESS, RANKINGS, TIES, held_out_prompts
from aligndistill.stages.models import point_to_student
from aligndistill.stages.verdicts import ask, require_readable
from aligndistill.store.artifacts import read_manifest
from aligndistill.store.jsonl import read_jsonl, write_jsonl
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
    by_length, _ = controlled(found, ours, theirs, evaluation)
    progress = RoundMetrics(
        round=round,
        win_rate=win_rate(found),
        win_rate_lc=by_length.win_rate,
        length_growth=_length(ours) / _length(by_author["start"]),
        kl_nats=mean_over_prompts(ours, lambda answer: answer.kl_nats),
        pairs=sum(1 for _ in (rankings / PAIRS).open("rb")),
        ended=None,
    )
    (context.folder / PROGRESS).write_text(progress.model_dump_json(indent=2) + "\n")
    point_to_student(student, context.folder)
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
    rate = measured.win_rate_lc or measured.win_rate
    if settings.no_gain and rate is not None and rate.low <= 0.5:
        interval = f"{rate.mean:.2f} [{rate.low:.2f}, {rate.high:.2f}]"
        return f"no_gain: the win rate over the previous round is {interval}, so a gain is not certain"
    growth, limit = measured.length_growth, settings.length_growth
    if limit is not None and growth > limit:
        return f"length_growth: answers are {growth:.2f} times as long as the start's (limit {limit:g})"
    if settings.kl_budget is not None and measured.kl_nats is not None and measured.kl_nats.mean > settings.kl_budget:
        return f"kl_budget: the KL from the start is {measured.kl_nats.mean:.1f} nats per answer (limit {settings.kl_budget:g})"
    if measured.pairs < settings.min_pairs:
        return f"min_pairs: the round had {measured.pairs} training pairs (limit {settings.min_pairs})"
    return None


@may_end
def require_order(context: StageContext, *, audit: Path, rankings: Path, learns_ties: bool) -> StageResult:
    """Decide whether a later round has something to learn from: an order, by a judge within the limits of `audit.stop`.

    Its training waits for this stage without reading it.
    """
    judged = AuditResult.model_validate_json((audit / AUDIT).read_bytes())
    if judged.stops:
        return StageResult(metrics={ENDED: f"audit: the judge of the next round cannot be trusted: {'; '.join(judged.stops)}"})
    if any(one.split == "train" for one in read_jsonl(rankings / RANKINGS, Ranking)):
        return StageResult()
    if learns_ties and (rankings / TIES).stat().st_size:
        return StageResult()
    manifest = read_manifest(rankings)
    reasons = ", ".join(f"{number} {reason}" for reason, number in manifest.dropped.items()) if manifest else ""
    return StageResult(metrics={ENDED: f"all_tied: no training prompt of the next round has answers in a strict order ({reasons})"})


def join(context: StageContext, *, before: Path, latest: Path) -> StageResult:
    """The rankings of several rounds as one set."""
    lines = {}
    for name in (RANKINGS, PAIRS, TIES):
        with (context.folder / name).open("wb") as file:
            lines[name] = sum(1 for line in _lines(before / name, latest / name) if file.write(line))
    return StageResult(counts={"rankings": lines[RANKINGS], "pairs": lines[PAIRS]})


def mix(
    context: StageContext,
    *,
    earlier: Mapping[str, Path],
    latest: Path,
    share: float,
    pairs: Literal["all", "best_worst"],
    conversational: bool,
    seed: int,
) -> StageResult:
    """All rankings of the latest round, and training rankings of earlier rounds, drawn so that the latest are this share.

    Of n training rankings of the latest round, round(n * (1 - share) / share) are drawn from those of all earlier rounds together,
    without replacement; all of them if there are fewer. Which ones follows from the seed, by a hash of round and prompt. Ties
    (`ties.jsonl`) are drawn by the same rule. Held-out rankings are those of the latest round.

    Args:
        earlier: the rankings of the rounds before.
        pairs, conversational: as in the stage `rankings`, for `pairs.jsonl`.
    """

    def drawn(name: str) -> Iterator[Ranking]:
        """The drawn training rankings of a file, round by round, in its order."""
        count = sum(one.split == "train" for one in read_jsonl(latest / name, Ranking))
        rows = {key: read_jsonl(folder / name, Ranking) for key, folder in earlier.items()}
        places = [
            (content_hash("mix", str(seed), key, one.prompt_id), key, one.prompt_id)
            for key, found in rows.items()
            for one in found
            if one.split == "train"
        ]
        chosen = {place[1:] for place in heapq.nsmallest(round(count * (1 - share) / share), places)}
        for key, folder in earlier.items():
            yield from (
                one for one in read_jsonl(folder / name, Ranking) if one.split == "train" and (key, one.prompt_id) in chosen
            )

    repeated = list(drawn(RANKINGS))
    write_jsonl(context.folder / RANKINGS, chain(repeated, read_jsonl(latest / RANKINGS, Ranking)))
    write_jsonl(context.folder / TIES, chain(drawn(TIES), read_jsonl(latest / TIES, Ranking)))
    with (context.folder / PAIRS).open("w", encoding="utf-8", errors="surrogatepass") as file:
        rows = [row for ranking in repeated for row in pairs_of(ranking, pairs, conversational=conversational)]
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        file.writelines((latest / PAIRS).open(encoding="utf-8", errors="surrogatepass"))
    trained = sum(one.split == "train" for one in read_jsonl(latest / RANKINGS, Ranking))
    return StageResult(counts={"latest": trained, "earlier": len(repeated)})


def _lines(*paths: Path) -> Iterator[bytes]:
    for path in paths:
        with path.open("rb") as file:
            yield from file


def _length(answers: Mapping[str, Sequence[Answer]]) -> float:
    """The mean length over prompts, tokens; at least one token, so that empty answers can be compared with."""
    mean = mean_over_prompts(answers, lambda answer: answer.length_tokens)
    assert mean is not None, "every author has answers"
    return max(1.0, mean.mean)
