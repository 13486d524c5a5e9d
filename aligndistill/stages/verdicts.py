"""verdicts.jsonl: what the judge says of each prompt's candidates; and what shows how far to trust it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from aligndistill.config.audit import AuditProbes
from aligndistill.config.judges import Judge
from aligndistill.config.models import EndpointModel
from aligndistill.errors import JudgeError
from aligndistill.judges.canaries import CanaryTask, canary_tasks
from aligndistill.judges.parsing import request_failed
from aligndistill.judges.protocol import Task
from aligndistill.preferences.agreement import unparsed
from aligndistill.processes.monitor import wait_for_others
from aligndistill.processes.progress import track
from aligndistill.processes.ranks import is_main_process, our_share
from aligndistill.records import Canary, Candidate, Prompt, Record, Verdict, content_hash, group_by_prompt
from aligndistill.stages.context import ModelSource, StageContext
from aligndistill.stages.files import CANARIES, CANDIDATES, PROMPTS, REPEATS, VERDICTS
from aligndistill.stages.opening import open_judge
from aligndistill.stages.shards import shard, shards
from aligndistill.store.jsonl import Appender, read_jsonl, read_union, write_jsonl
from aligndistill.store.stage import StageResult, together

ANY_VERDICT: TypeAdapter[Verdict] = TypeAdapter(Verdict)


class JudgedTask(Record):
    """All verdicts on one task, on one line, so that a kill leaves a task judged or not judged."""

    prompt_id: str
    verdicts: tuple[Verdict, ...]


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
) -> StageResult:
    """Judge every prompt with at least two candidates, canaries among them; what was judged before a kill is kept.

    A question that the server did not answer has no verdict, and is asked again by a resumed run.

    `canaries.jsonl` and `repeats.jsonl` are for the audit alone: rankings are made of `verdicts.jsonl`.
    """
    asked = labelling_tasks(judge, probes, prompts, candidates)
    judged = ask(context, judge, models, asked.tasks, seed, "verdicts")
    repeats = ask(context, judge, models, asked.again, seed + 1, "repeats")
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
    return StageResult(
        counts={
            "tasks": len(asked.labelled),
            "verdicts": len(verdicts),
            "canaries": len(asked.canaries),
            "asked twice": len(asked.again),
        },
        metrics={**judge_metrics(verdicts), **{name: spent[name] for name in ("calls", "prompt_tokens", "completion_tokens")}},
    )


@dataclass(frozen=True)
class LabellingTasks:
    """What the judge is asked.

    Attributes:
        labelled: every prompt with two candidates or more.
        tasks: those and the canaries, each behind its prompt's own task.
        again: the tasks whose questions are asked a second time.
    """

    labelled: list[Task]
    canaries: list[CanaryTask]
    tasks: list[Task]
    again: list[Task]


def labelling_tasks(judge: Judge, probes: AuditProbes, prompts: Path, candidates: Path) -> LabellingTasks:
    """What the judge is asked of the candidates, with the probes among them; the same each time."""
    by_prompt = group_by_prompt(read_jsonl(candidates / CANDIDATES, Candidate))
    labelled = [
        Task(prompt.id, prompt.messages, tuple(by_prompt[prompt.id]))
        for prompt in read_jsonl(prompts / PROMPTS, Prompt)
        if len(by_prompt[prompt.id]) >= 2
    ]
    canaries = {canary.prompt_id: canary for canary in canary_tasks(labelled, probes.canaries)}
    mixed = [[task, canaries[task.prompt_id].task] if task.prompt_id in canaries else [task] for task in labelled]
    repeats = 0 if judge.computes else probes.repeats
    again = sorted(labelled, key=lambda task: content_hash("repeat", task.prompt_id))[:repeats]
    return LabellingTasks(labelled, list(canaries.values()), [task for some in mixed for task in some], again)


def require_readable(context: StageContext, verdicts: Sequence[Verdict], label: str) -> None:
    """Refuse to continue with verdicts of which none could be read.

    Raises:
        JudgeError: it shows the first reply.
    """
    share = unparsed(verdicts)
    if verdicts and share.count == share.total:
        replies = [verdict.reply for verdict in verdicts if verdict.reply][:1]
        raise JudgeError(
            f"none of the judge's {share.total} verdicts could be read. "
            + (f"Its first reply was {replies[0][:200]!r}. " if replies else "")
            + "Change the template, raise max_new_tokens, or take another judge; then delete "
            + f"{context.scratch / f'{label}.jsonl'} to ask again."
        )


def ask(
    context: StageContext, judge: Judge, models: Mapping[str, ModelSource], tasks: Sequence[Task], seed: int, label: str
) -> list[Verdict]:
    """The verdicts on tasks, in the tasks' order, on the first process. Each task's are written before the next is waited for.

    Servers are asked by the first process alone; else every process judges its share, and the first gets all.
    """
    on_server = any(isinstance(model, EndpointModel) for model in models.values())
    if on_server and not is_main_process():
        return []
    partial = context.scratch / f"{label}.jsonl"
    with Appender(shard(partial)) as appender:
        judged_before = [one for file in shards(partial) for one in read_jsonl(file, JudgedTask)]
        done = {one.prompt_id for one in judged_before if not any(map(request_failed, one.verdicts))}
        ours = tasks if on_server else our_share(tasks)
        missing = [task for task in ours if task.prompt_id not in done]
        if missing:
            opened = open_judge(context, judge, models, seed)
            for judged in track(opened.judge(missing), label, len(missing)):
                appender.add([JudgedTask(prompt_id=judged.prompt_id, verdicts=judged.verdicts)])
    if not on_server:
        wait_for_others(f"{context.folder.name} has its {label}")
        if not is_main_process():  # the first one may have finished by now, and scratch is gone then
            return []
    judged_tasks = {one.prompt_id: one.verdicts for file in shards(partial) for one in read_jsonl(file, JudgedTask)}
    return [verdict for task in tasks for verdict in judged_tasks[task.prompt_id]]


def read_verdicts(folder: Path, name: str = VERDICTS) -> Iterator[Verdict]:
    """The verdicts in a finished stage's folder."""
    return read_union(folder / name, ANY_VERDICT)


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
