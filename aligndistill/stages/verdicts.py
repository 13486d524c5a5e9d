"""verdicts.jsonl: the judge's verdicts on each prompt's candidates, and further verdicts for its audit."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from aligndistill.config.audit import AuditProbes
from aligndistill.config.judges import Judge
from aligndistill.config.models import EndpointModel
from aligndistill.errors import JudgeError
from aligndistill.judges.canaries import CanaryTask, canary_tasks
from aligndistill.judges.parsing import request_failed
from aligndistill.judges.protocol import Judged, Task
from aligndistill.preferences.agreement import unparsed
from aligndistill.processes.monitor import wait_for_others
from aligndistill.processes.progress import track
from aligndistill.processes.ranks import is_main_process, our_share
from aligndistill.records import Canary, Candidate, Prompt, Record, Verdict, content_hash, group_by_prompt, is_unparsed
from aligndistill.stages.context import ModelSource, StageContext
from aligndistill.stages.files import CANARIES, CANDIDATES, PROMPTS, REPEATS, VERDICTS
from aligndistill.stages.opening import open_judge
from aligndistill.stages.shards import shard, shards
from aligndistill.store.jsonl import Appender, read_jsonl, write_jsonl
from aligndistill.store.stage import StageResult, together

TASKS_AT_ONCE = 4096
"""So many tasks are given to the judge together. Their questions are in memory, and a judge that asks in rounds, or a panel, gives
its first verdicts after the last round or member."""


CACHED = "cached"
"""The metric of a stage that asks a judge: how many of its calls were answered from the cache, by purpose."""
LABELLING, ASKED_AGAIN, KNOWN_BAD, IN_EVALUATION = "labelling", "asked again", "canaries", "evaluation"


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
    of_tasks = ask_tasks(context, judge, models, asked.tasks, seed, "verdicts")
    again = ask_tasks(context, judge, models, asked.again, seed + 1, "repeats")
    judged, repeats = verdicts_of(of_tasks), verdicts_of(again)
    require_readable(context, judged, "verdicts")
    if not is_main_process():
        return StageResult()
    of_task = group_by_prompt(judged)
    verdicts = [verdict for task in asked.labelled for verdict in of_task[task.prompt_id]]
    write_jsonl(context.folder / VERDICTS, verdicts)
    write_jsonl(
        context.folder / CANARIES,
        (
            Canary(
                prompt_id=canary.prompt_id,
                kind=canary.kind,
                bad=canary.bad,
                reference=canary.reference,
                verdicts=tuple(of_task[canary.task.prompt_id]),
            )
            for canary in asked.canaries
        ),
    )
    write_jsonl(context.folder / REPEATS, repeats)
    spent = judge_metrics([*judged, *repeats])
    known_bad = {canary.task.prompt_id for canary in asked.canaries}
    cached = {
        LABELLING: sum(one.cached for one in of_tasks if one.prompt_id not in known_bad),
        ASKED_AGAIN: sum(one.cached for one in again),
        KNOWN_BAD: sum(one.cached for one in of_tasks if one.prompt_id in known_bad),
    }
    return StageResult(
        counts={
            "tasks": len(asked.labelled),
            "verdicts": len(verdicts),
            "canaries": len(asked.canaries),
            "asked twice": len(asked.again),
        },
        metrics={
            **judge_metrics(verdicts),
            **{name: spent[name] for name in ("calls", "prompt_tokens", "completion_tokens")},
            CACHED: cached,
        },
    )


@dataclass(frozen=True)
class LabellingTasks:
    """The tasks of the judge.

    Attributes:
        labelled: every prompt with enough candidates.
        tasks: those and the canaries, each after its prompt's own task.
        again: the tasks whose questions are asked twice.
    """

    labelled: list[Task]
    canaries: list[CanaryTask]
    tasks: list[Task]
    again: list[Task]


def labelling_tasks(judge: Judge, probes: AuditProbes, prompts: Path, candidates: Path, least: int = 2) -> LabellingTasks:
    """The tasks on these candidates, including the probes; deterministic.

    Args:
        least: prompts with fewer candidates are not judged.
    """
    by_prompt = group_by_prompt(read_jsonl(candidates / CANDIDATES, Candidate))
    labelled = [
        Task(prompt.id, prompt.messages, tuple(by_prompt[prompt.id]))
        for prompt in read_jsonl(prompts / PROMPTS, Prompt)
        if len(by_prompt[prompt.id]) >= least
    ]
    canaries = {canary.prompt_id: canary for canary in canary_tasks(labelled, probes.canaries)}
    mixed = [[task, canaries[task.prompt_id].task] if task.prompt_id in canaries else [task] for task in labelled]
    repeats = 0 if judge.computes else probes.repeats
    again = sorted(labelled, key=lambda task: content_hash("repeat", task.prompt_id))[:repeats]
    return LabellingTasks(labelled, list(canaries.values()), [task for some in mixed for task in some], again)


def require_readable(context: StageContext, verdicts: Sequence[Verdict], label: str) -> None:
    """Raise an error if no verdict could be read.

    Raises:
        JudgeError: no verdict could be read; the message has the first reply.
    """
    share = unparsed(verdicts)
    if verdicts and share.count == share.total:
        replies = [verdict.reply for verdict in verdicts if verdict.reply][:1]
        raise JudgeError(
            f"none of the judge's {share.total} verdicts could be read. "
            + (f"Its first reply was {replies[0][:200]!r}. " if replies else "")
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
    """The tasks with their verdicts, in order, on the main process. Each task's verdicts are saved as they arrive.

    Only the main process sends requests to servers; with local judges, every process judges its share and the main process gets
    all.
    """
    on_server = any(isinstance(model, EndpointModel) for model in models.values())
    if on_server and not is_main_process():
        return []
    partial = context.scratch / f"{label}.jsonl"
    with Appender(shard(partial)) as appender:
        judged_before = [one for file in shards(partial) for one in read_jsonl(file, JudgedTask)]
        done = {one.prompt_id for one in judged_before if not _is_asked_again(one.verdicts)}
        ours = tasks if on_server else our_share(tasks)
        missing = [task for task in ours if task.prompt_id not in done]
        if missing:
            opened = open_judge(context, judge, models, seed)
            spending = context.spending if on_server else None
            parts = (missing[start : start + TASKS_AT_ONCE] for start in range(0, len(missing), TASKS_AT_ONCE))
            judging = (one for part in parts for one in opened.judge(part))
            for judged in track(judging, label, len(ours), len(ours) - len(missing), spending):
                appender.add([JudgedTask.of(judged)])
    if not on_server:
        wait_for_others(f"{context.folder.name} has its {label}")
        if not is_main_process():  # the main process may have finished and deleted the scratch folder
            return []
    judged_tasks = {one.prompt_id: one for file in shards(partial) for one in read_jsonl(file, JudgedTask)}
    return [judged_tasks[task.prompt_id] for task in tasks]


def _is_asked_again(verdicts: Sequence[Verdict]) -> bool:
    """Whether a resumed run asks a task again: the server did not answer, or none of its verdicts could be read, which may be why
    the run was stopped."""
    return any(map(request_failed, verdicts)) or (bool(verdicts) and all(map(is_unparsed, verdicts)))


def judge_metrics(verdicts: Iterable[Verdict]) -> dict[str, int]:
    """Calls, tokens and unreadable replies."""
    verdicts = list(verdicts)
    return {
        "calls": sum(verdict.usage.calls for verdict in verdicts),
        "prompt_tokens": sum(verdict.usage.prompt_tokens for verdict in verdicts),
        "completion_tokens": sum(verdict.usage.completion_tokens for verdict in verdicts),
        "unparsed": unparsed(verdicts).count,
        "verdicts": len(verdicts),
    }
