"""verdicts.jsonl: what the teacher says of each prompt's candidates; and what shows how far to trust it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter

from aligndistill.config import Judge
from aligndistill.config_audit import AuditProbes
from aligndistill.errors import JudgeError
from aligndistill.judges.answer_form import went_unanswered
from aligndistill.judges.canaries import CanaryTask, canary_tasks
from aligndistill.judges.protocol import Task
from aligndistill.preferences.agreement import unparsed
from aligndistill.progress import track
from aligndistill.records import Canary, Candidate, Prompt, Record, Verdict, content_hash, group_by_prompt
from aligndistill.stages.open_models import Servers, open_judge
from aligndistill.stages.sharing import part, parts
from aligndistill.stages.stage import Made, Work, wait_for_others
from aligndistill.store.jsonl import Appender, read_jsonl, read_union, write_jsonl
from aligndistill.training.distributed import is_main_process, our_share

VERDICTS: TypeAdapter[Verdict] = TypeAdapter(Verdict)

SAME_EVERY_TIME = frozenset({"likelihood", "reward_model"})
"""Judges that compute their verdict: asking them twice shows nothing."""


class JudgedTask(Record):
    """All verdicts on one task, on one line, so that a kill leaves a task judged or not judged."""

    prompt_id: str
    verdicts: tuple[Verdict, ...]


def make_verdicts(work: Work, settings: Judge, servers: Servers, content: str, probes: AuditProbes) -> Made:
    """Judge every prompt with at least two candidates, canaries among them; what was judged before a kill is kept.

    A question that the server did not answer has no verdict, and is asked again by a run that goes on.

    `canaries.jsonl` and `repeats.jsonl` are for the audit alone: rankings are made of `verdicts.jsonl`. `content` is the hash of
    the judge's files, so that another template is another judge.
    """
    order = labelling_order(work, settings, probes)
    judged = judge_tasks(work, settings, servers, order.tasks, "verdicts")
    repeats = _ask(replace(work, seed=work.seed + 1), settings, servers, order.again, "repeats")
    if not is_main_process():
        return Made()
    of_task = group_by_prompt(judged)
    verdicts = [verdict for task in order.labelled for verdict in of_task[task.prompt_id]]
    write_jsonl(work.folder / "verdicts.jsonl", verdicts)
    write_jsonl(
        work.folder / "canaries.jsonl",
        (
            Canary(
                prompt_id=canary.prompt_id,
                kind=canary.kind,
                bad=canary.bad,
                reference=canary.reference,
                verdicts=tuple(of_task[canary.task.prompt_id]),
            )
            for canary in order.canaries
        ),
    )
    write_jsonl(work.folder / "repeats.jsonl", repeats)
    spent = judge_figures([*judged, *repeats])
    return Made(
        counts={
            "tasks": len(order.labelled),
            "verdicts": len(verdicts),
            "canaries": len(order.canaries),
            "asked twice": len(order.again),
        },
        figures={**judge_figures(verdicts), **{name: spent[name] for name in ("calls", "prompt_tokens", "completion_tokens")}},
    )


@dataclass(frozen=True)
class Order:
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


def labelling_order(work: Work, settings: Judge, probes: AuditProbes) -> Order:
    """What the judge is asked of the candidates; the same each time."""
    return in_order(labelling_tasks(work), settings, probes)


def in_order(labelled: list[Task], settings: Judge, probes: AuditProbes) -> Order:
    """With the probes among them."""
    canaries = {canary.prompt_id: canary for canary in canary_tasks(labelled, probes.canaries)}
    mixed = [[task, canaries[task.prompt_id].task] if task.prompt_id in canaries else [task] for task in labelled]
    repeats = 0 if settings.kind in SAME_EVERY_TIME else probes.repeats
    again = sorted(labelled, key=lambda task: content_hash("repeat", task.prompt_id))[:repeats]
    return Order(labelled, list(canaries.values()), [task for some in mixed for task in some], again)


def labelling_tasks(work: Work) -> list[Task]:
    """Every prompt with two candidates or more."""
    by_prompt = group_by_prompt(read_jsonl(work.inputs["candidates"] / "candidates.jsonl", Candidate))
    return [
        Task(prompt.id, prompt.messages, tuple(by_prompt[prompt.id]))
        for prompt in read_jsonl(work.inputs["prompts"] / "prompts.jsonl", Prompt)
        if len(by_prompt[prompt.id]) >= 2
    ]


def judge_tasks(work: Work, settings: Judge, servers: Servers, tasks: Sequence[Task], label: str) -> list[Verdict]:
    """The verdicts on tasks, in the tasks' order, on the first process. Each task's are written before the next is waited for.

    Raises:
        JudgeError: not one verdict could be read.
    """
    verdicts = _ask(work, settings, servers, tasks, label)
    share = unparsed(verdicts)
    if verdicts and share.count == share.total:
        replies = [verdict.reply for verdict in verdicts if verdict.reply][:1]
        raise JudgeError(
            f"none of the judge's {share.total} verdicts could be read. "
            + (f"Its first reply was {replies[0][:200]!r}. " if replies else "")
            + "Change the template, raise max_new_tokens, or take another judge; then delete "
            + f"{work.scratch / f'{label}.jsonl'} to ask again."
        )
    return verdicts


def _ask(work: Work, settings: Judge, servers: Servers, tasks: Sequence[Task], label: str) -> list[Verdict]:
    """On the first process alone where servers are asked; else every process judges its share, and the first gets all."""
    if servers and not is_main_process():
        return []
    partial = work.scratch / f"{label}.jsonl"
    with Appender(part(partial)) as appender:
        judged_before = [one for file in parts(partial) for one in read_jsonl(file, JudgedTask)]
        done = {one.prompt_id for one in judged_before if not any(map(went_unanswered, one.verdicts))}
        ours = tasks if servers else our_share(tasks)
        missing = [task for task in ours if task.prompt_id not in done]
        if missing:
            judge = open_judge(work, settings, servers)
            for judged in track(judge.judge(missing), label, len(missing)):
                appender.add([JudgedTask(prompt_id=judged.prompt_id, verdicts=judged.verdicts)])
    if not servers:
        wait_for_others(f"{work.folder.name} has its {label}")
        if not is_main_process():  # the first one may have finished by now, and scratch is gone then
            return []
    judged_tasks = {one.prompt_id: one.verdicts for file in parts(partial) for one in read_jsonl(file, JudgedTask)}
    return [verdict for task in tasks for verdict in judged_tasks[task.prompt_id]]


def read_verdicts(folder: Path, name: str = "verdicts.jsonl") -> Iterator[Verdict]:
    """The verdicts in a finished stage's folder."""
    return read_union(folder / name, VERDICTS)


def judge_figures(verdicts: Iterable[Verdict]) -> dict[str, int]:
    """Calls, tokens and unreadable replies."""
    verdicts = list(verdicts)
    return {
        "calls": sum(verdict.usage.calls for verdict in verdicts),
        "prompt_tokens": sum(verdict.usage.prompt_tokens for verdict in verdicts),
        "completion_tokens": sum(verdict.usage.completion_tokens for verdict in verdicts),
        "unparsed": unparsed(verdicts).count,
        "verdicts": len(verdicts),
    }
