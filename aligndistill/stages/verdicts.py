"""verdicts.jsonl: what the teacher says of each prompt's candidates."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pydantic import TypeAdapter

from aligndistill.config import Judge
from aligndistill.errors import JudgeError
from aligndistill.judges.protocol import Task
from aligndistill.preferences.agreement import unparsed
from aligndistill.progress import track
from aligndistill.records import Candidate, Prompt, Record, Verdict
from aligndistill.stages.open_models import Servers, open_judge
from aligndistill.stages.sharing import part, parts
from aligndistill.stages.stage import Made, Work, wait_for_others
from aligndistill.store.jsonl import Appender, read_jsonl, read_union, write_jsonl
from aligndistill.training.distributed import is_main_process, our_share

VERDICTS: TypeAdapter[Verdict] = TypeAdapter(Verdict)


class JudgedTask(Record):
    """All verdicts on one task, on one line, so that a kill leaves a task judged or not judged."""

    prompt_id: str
    verdicts: tuple[Verdict, ...]


def make_verdicts(work: Work, settings: Judge, servers: Servers, content: str) -> Made:
    """Judge every prompt with at least two candidates; what was judged before a kill is kept.

    `content` is the hash of the judge's files, so that another template is another judge.
    """
    by_prompt: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in read_jsonl(work.inputs["candidates"] / "candidates.jsonl", Candidate):
        by_prompt[candidate.prompt_id].append(candidate)
    tasks = [
        Task(prompt.id, prompt.messages, tuple(by_prompt[prompt.id]))
        for prompt in read_jsonl(work.inputs["prompts"] / "prompts.jsonl", Prompt)
        if len(by_prompt[prompt.id]) >= 2
    ]
    verdicts = judge_tasks(work, settings, servers, tasks, "verdicts")
    if not is_main_process():
        return Made()
    write_jsonl(work.folder / "verdicts.jsonl", verdicts)
    return Made(counts={"tasks": len(tasks), "verdicts": len(verdicts)}, figures=judge_figures(verdicts))


def judge_tasks(work: Work, settings: Judge, servers: Servers, tasks: Sequence[Task], label: str) -> list[Verdict]:
    """The verdicts on tasks, in the tasks' order, on the first process. Each task's are on disk before the next is waited for.

    Raises:
        JudgeError: not one verdict could be read.
    """
    if servers and not is_main_process():
        return []
    partial = work.scratch / f"{label}.jsonl"
    with Appender(part(partial)) as appender:
        done = {one.prompt_id for file in parts(partial) for one in read_jsonl(file, JudgedTask)}
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
    verdicts = [verdict for task in tasks for verdict in judged_tasks[task.prompt_id]]
    share = unparsed(verdicts)
    if verdicts and share.count == share.total:
        replies = [verdict.reply for verdict in verdicts if verdict.reply][:1]
        raise JudgeError(
            f"none of the judge's {share.total} verdicts could be read. "
            + (f"Its first reply was {replies[0][:200]!r}. " if replies else "")
            + "Change the template, raise max_new_tokens, or take another judge; then delete "
            + f"{partial} to ask again."
        )
    return verdicts


def read_verdicts(folder: Path) -> Iterator[Verdict]:
    """The verdicts in a finished stage's folder."""
    return read_union(folder / "verdicts.jsonl", VERDICTS)


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
