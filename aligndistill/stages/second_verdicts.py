"""verdicts.jsonl: a second judge's verdicts on a small sample of the pairs that the judge decided, for its audit."""

from collections.abc import Mapping
from pathlib import Path

from aligndistill.config.judges import Judge
from aligndistill.evaluation.wins import by_prompt
from aligndistill.judges.protocol import Task
from aligndistill.processes.ranks import is_main_process
from aligndistill.records import Candidate, Prompt, content_hash, group_by_prompt
from aligndistill.stages.context import ModelSource, StageContext
from aligndistill.stages.files import CANDIDATES, PROMPTS, VERDICTS, read_verdicts
from aligndistill.stages.verdicts import CACHED, SECOND, ask_tasks, judge_metrics, require_readable, verdicts_of
from aligndistill.store.jsonl import read_jsonl, write_jsonl
from aligndistill.store.stage import StageResult, together


@together
def make(
    context: StageContext,
    *,
    judge: Judge,
    models: Mapping[str, ModelSource],
    sample: int,
    prompts: Path,
    candidates: Path,
    verdicts: Path,
    seed: int,
) -> StageResult:
    """Judge a pair of answers to each of so many held-out prompts; verdicts of an interrupted run are reused.

    Args:
        sample: how many prompts, at most.
        verdicts: the judge's; only pairs that it decided can be compared.
    """
    is_known = (verdicts / VERDICTS).is_file()  # not in a dry run before the judge was asked
    decided = {prompt: known.pairs for prompt, known in by_prompt(read_verdicts(verdicts)).items()} if is_known else None
    tasks = sampled_pairs(prompts, candidates, decided, sample)
    judged = ask_tasks(context, judge, models, tasks, seed, "verdicts")
    found = verdicts_of(judged)
    require_readable(context, found, "verdicts")
    if not is_main_process():
        return StageResult()
    write_jsonl(context.folder / VERDICTS, found)
    cached = {SECOND: sum(one.cached for one in judged)}
    return StageResult(counts={"pairs": len(tasks), "verdicts": len(found)}, metrics={**judge_metrics(found), CACHED: cached})


def sampled_pairs(prompts: Path, candidates: Path, decided: Mapping[str, list[tuple[str, str]]] | None, sample: int) -> list[Task]:
    """A pair of candidates of each of so many held-out prompts, the first ones in the order of a hash; pairs by hash, too.

    The order is that of all held-out prompts, so that it does not depend on the round; those without a pair are left out.

    Args:
        decided: the pairs to choose from, by prompt; None for the first two candidates of each.
    """
    held_out = {one.id: one for one in read_jsonl(prompts / PROMPTS, Prompt) if one.split == "held_out"}
    texts = group_by_prompt(one for one in read_jsonl(candidates / CANDIDATES, Candidate) if one.prompt_id in held_out)
    tasks: list[Task] = []
    for prompt in sorted(held_out.values(), key=lambda one: content_hash("second judge", one.id)):
        if len(tasks) == sample:
            break
        of_prompt = texts[prompt.id]
        if decided is not None:
            pairs = decided.get(prompt.id, [])
        else:
            pairs = [(of_prompt[0].id, of_prompt[1].id)] if len(of_prompt) > 1 else []
        if pairs:
            chosen = min(pairs, key=lambda pair: content_hash("second judge", *pair))
            tasks.append(Task(prompt.id, prompt.messages, tuple(one for one in of_prompt if one.id in chosen)))
    return tasks
