"""verdicts.jsonl: the judge's verdicts on each prompt's candidates, and further verdicts for its audit."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import Field

from aligndistill.config.audit import AuditProbes
from aligndistill.config.judges import Judge
from aligndistill.config.models import EndpointModel
from aligndistill.errors import JudgeError
from aligndistill.judges.parsing import request_failed
from aligndistill.judges.protocol import Judged, Task
from aligndistill.processes.monitor import wait_for_others
from aligndistill.processes.progress import track
from aligndistill.processes.ranks import is_main_process, our_share
from aligndistill.records import Canary, Record, Verdict, is_unparsed
from aligndistill.stages.context import ModelSource, StageContext
from aligndistill.stages.files import CANARIES, REPEATS, VERDICTS
from aligndistill.stages.labelling import labelling_tasks
from aligndistill.stages.opening import open_judge
from aligndistill.stages.shards import shard, shards
from aligndistill.store.jsonl import Appender, read_growing, write_jsonl, writing_jsonl
from aligndistill.store.stage import StageResult, together
from aligndistill.store.stored_records import StoredRecords

TASKS_AT_ONCE = 4096
"""So many tasks are given to the judge together. Their questions are in memory, and a judge that asks in rounds, or a panel, gives
its first verdicts after the last round or member."""


CACHED = "cached"
"""The metric of a stage that asks a judge: how many of its calls were answered from the cache, by purpose."""
LABELLING, ASKED_AGAIN, KNOWN_BAD, SECOND, IN_EVALUATION = "labelling", "asked again", "canaries", "second judge", "evaluation"


class JudgedTask(Record):
    """All verdicts on one task, on one line, so that after a kill a task is either complete or missing.

    Attributes:
        cached: how many of its calls were answered from the cache.
    """

    prompt_id: str
    verdicts: tuple[Verdict, ...]
    cached: int = Field(default=0, exclude_if=lambda calls: not calls)

    @staticmethod
    def of(judged: Judged) -> "JudgedTask":
        """What a judge found, as it is saved."""
        cached = sum(verdict.usage.cached for verdict in judged.verdicts)
        return JudgedTask(prompt_id=judged.prompt_id, verdicts=judged.verdicts, cached=cached)


@together
def make(
    context: StageContext,
    *,
    judge: Judge,
    models: Mapping[str, ModelSource],
    probes: AuditProbes,
    prompts: Path,
    candidates: Path,
    seed: int,
    least: int = 2,
) -> StageResult:
    """Judge every prompt with at least `least` candidates, including canaries; verdicts of an interrupted run are reused.

    A question that the server did not answer has no verdict; a resumed run asks it again.

    `canaries.jsonl` and `repeats.jsonl` are for the audit alone; rankings use `verdicts.jsonl`.
    """
    asked = labelling_tasks(judge, probes, prompts, candidates, least)
    judged = judged_tasks(context, judge, models, asked.tasks, seed, "verdicts")
    repeated = judged_tasks(context, judge, models, asked.again, seed + 1, "repeats")
    require_readable(context, (verdict for one in judged.values() for verdict in one.verdicts), "verdicts")
    if not is_main_process():
        return StageResult()
    cached = Counter[str]()

    def counted(purpose: str, of: Mapping[str, JudgedTask], tasks: Iterable[str]) -> Iterator[JudgedTask]:
        for task in tasks:
            one = of[task]
            cached[purpose] += one.cached
            yield one

    metrics = _write(context.folder / VERDICTS, counted(LABELLING, judged, asked.labelled))
    bad = counted(KNOWN_BAD, judged, (canary.task.prompt_id for canary in asked.canaries))
    canaries = [
        Canary(prompt_id=canary.prompt_id, kind=canary.kind, bad=canary.bad, reference=canary.reference, verdicts=one.verdicts)
        for canary, one in zip(asked.canaries, bad, strict=True)
    ]
    write_jsonl(context.folder / CANARIES, canaries)
    of_repeats = _write(context.folder / REPEATS, counted(ASKED_AGAIN, repeated, asked.again))
    of_canaries = judge_metrics(verdict for canary in canaries for verdict in canary.verdicts)
    spent = {name: metrics[name] + of_canaries[name] + of_repeats[name] for name in ("calls", "prompt_tokens", "completion_tokens")}
    return StageResult(
        counts={
            "tasks": len(asked.labelled),
            "verdicts": metrics["verdicts"],
            "canaries": len(asked.canaries),
            "asked twice": len(asked.again),
        },
        metrics={**metrics, **spent, CACHED: {purpose: cached[purpose] for purpose in (LABELLING, ASKED_AGAIN, KNOWN_BAD)}},
    )


def _write(path: Path, judged: Iterable[JudgedTask]) -> dict[str, int]:
    """Write the verdicts on tasks; returns their metrics."""
    with writing_jsonl(path) as add:

        def written() -> Iterator[Verdict]:
            for one in judged:
                for verdict in one.verdicts:
                    add(verdict)
                    yield verdict

        return judge_metrics(written())


def require_readable(context: StageContext, verdicts: Iterable[Verdict], label: str) -> None:
    """Raise an error if no verdict could be read.

    Raises:
        JudgeError: no verdict could be read; the message has the first reply.
    """
    unread, first_reply = 0, ""
    for verdict in verdicts:
        if not is_unparsed(verdict):
            return
        unread += 1
        first_reply = first_reply or verdict.reply or ""
    if unread:
        raise JudgeError(
            f"none of the judge's {unread} verdicts could be read. "
            + (f"Its first reply was {first_reply[:200]!r}. " if first_reply else "")
            + "Change the template, raise max_new_tokens, or use another judge; then delete "
            + f"{context.scratch / f'{label}.jsonl'} to ask again."
        )


def ask(
    context: StageContext, judge: Judge, models: Mapping[str, ModelSource], tasks: Sequence[Task], seed: int, label: str
) -> list[Verdict]:
    """The verdicts of `ask_tasks`."""
    return verdicts_of(ask_tasks(context, judge, models, tasks, seed, label))


def verdicts_of(judged: Iterable[JudgedTask]) -> list[Verdict]:
    """All verdicts on these tasks."""
    return [verdict for one in judged for verdict in one.verdicts]


def ask_tasks(
    context: StageContext, judge: Judge, models: Mapping[str, ModelSource], tasks: Sequence[Task], seed: int, label: str
) -> list[JudgedTask]:
    """The tasks with their verdicts, in order and in memory, on the main process; see `judged_tasks`."""
    by_id = {task.prompt_id: task for task in tasks}
    judged = judged_tasks(context, judge, models, by_id, seed, label)
    return [judged[task] for task in by_id] if is_main_process() else []


def judged_tasks(
    context: StageContext, judge: Judge, models: Mapping[str, ModelSource], tasks: Mapping[str, Task], seed: int, label: str
) -> Mapping[str, JudgedTask]:
    """The verdicts on each task by its id, on the main process. They are saved as they arrive, and read when they are asked for.

    Only the main process sends requests to servers; with local judges, every process judges its share and the main process gets
    all.
    """
    on_server = any(isinstance(model, EndpointModel) for model in models.values())
    if on_server and not is_main_process():
        return {}
    partial = context.scratch / f"{label}.jsonl"
    with Appender(shard(partial)) as appender:
        before = (one for file in shards(partial) for one in read_growing(file, JudgedTask))
        done, read_before = set(), Counter[str]()
        for one in before:
            read_before.update(judges_read(one))
            if not _is_asked_again(one.verdicts):
                done.add(one.prompt_id)
        ours = list(tasks) if on_server else our_share(list(tasks))
        missing = [task for task in ours if task not in done]
        if missing:
            opened = open_judge(context, judge, models, seed, read_before=read_before)
            spending = context.spending if on_server else None
            parts = (missing[start : start + TASKS_AT_ONCE] for start in range(0, len(missing), TASKS_AT_ONCE))
            judging = (one for part in parts for one in opened.judge([tasks[task] for task in part]))
            for judged in track(judging, label, len(ours), len(ours) - len(missing), spending):
                appender.add([JudgedTask.of(judged)])
    if not on_server:
        wait_for_others(f"{context.folder.name} has its {label}")
        if not is_main_process():  # the main process may have finished and deleted the scratch folder
            return {}
    return StoredRecords(shards(partial), JudgedTask, lambda one: one.prompt_id, growing=True)


def judges_read(judged: JudgedTask) -> Iterator[str]:
    """The judge's name, of a panel its member's, for each verdict that could be read."""
    given = {
        one for verdict in judged.verdicts for one in getattr(verdict, "members", ()) or (verdict,)
    }  # a grade is in many pairs
    return (one.judge for one in given if not is_unparsed(one))


def _is_asked_again(verdicts: Sequence[Verdict]) -> bool:
    """Whether a resumed run asks a task again: the server did not answer, or none of its verdicts could be read, which may be why
    the run was stopped."""
    return any(map(request_failed, verdicts)) or (bool(verdicts) and all(map(is_unparsed, verdicts)))


def judge_metrics(verdicts: Iterable[Verdict]) -> dict[str, int]:
    """Calls, tokens and unreadable replies."""
    found = Counter[str]()
    for verdict in verdicts:
        found["calls"] += verdict.usage.calls
        found["prompt_tokens"] += verdict.usage.prompt_tokens
        found["completion_tokens"] += verdict.usage.completion_tokens
        found["unparsed"] += is_unparsed(verdict)
        found["verdicts"] += 1
    return {name: found[name] for name in ("calls", "prompt_tokens", "completion_tokens", "unparsed", "verdicts")}
