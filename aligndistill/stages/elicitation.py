"""prompts.jsonl again, with what models wrote in one step of `prompts.elicit`; dropped.jsonl and elicitation.json beside it."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from aligndistill.chat.protocol import SamplingParams
from aligndistill.config.budget import Price
from aligndistill.config.elicitation import Curate, Evolve, Expand, Magpie, Step
from aligndistill.elicitation.asking import Ask
from aligndistill.elicitation.collecting import Collected
from aligndistill.elicitation.curation import curate
from aligndistill.elicitation.evolution import evolve
from aligndistill.elicitation.expansion import expand
from aligndistill.elicitation.figures import step_figures
from aligndistill.elicitation.magpie import magpie
from aligndistill.processes.progress import bar, say
from aligndistill.records import Prompt, Usage
from aligndistill.reporting.written_data import ElicitationMetrics
from aligndistill.stages.asking import CachingAsk
from aligndistill.stages.context import ModelSource, StageContext, require_records
from aligndistill.stages.files import DROPPED, ELICITATION, PROMPTS, SEEDS
from aligndistill.stages.generated import Generated, known_lines, read_generated, write_generated, writer
from aligndistill.stages.weak_prompts import weak_seeds
from aligndistill.store.jsonl import read_jsonl, write_jsonl
from aligndistill.store.stage import StageResult

ADVICE = "Look at dropped.jsonl in the stage's folder for what the models wrote."


def make(
    context: StageContext,
    *,
    settings: Step,
    models: Mapping[str, ModelSource],
    prompts: Path,
    seed: int,
    prices: Mapping[str, Price],
    round: str | None = None,
    weak: Mapping[str, Path] | None = None,
) -> StageResult:
    """Let models write new training prompts. Replies of an interrupted run are reused.

    Args:
        prompts: what the run has so far. What is held out of it stays so, and is never shown to a model.
        prices: by the names of the models; of those that have one.
        round: that the prompts are written for; None before the first.
        weak: the run's `prompts`, without those that were written for a round, and the `rankings` of the round before: models see
            the prompts that its start was weakest at. A step that writes nothing new then ends no run.

    Raises:
        DataError: no new prompt is left.
    """
    before = list(read_jsonl(prompts / PROMPTS, Prompt))
    seeds = weak_seeds(weak["prompts"], weak["rankings"], settings, str(seed), is_dry=context.is_dry) if weak is not None else None
    with bar(settings.name) as running:
        ask = CachingAsk(context, models, seed, running)
        collected = written(settings, before, ask, seed, seeds.prompts if seeds is not None else None)
    if seeds is not None:
        write_jsonl(context.folder / SEEDS, seeds.rows())
    reasons = collected.reasons()
    write_jsonl(context.folder / DROPPED, collected.dropped)
    write_jsonl(context.folder / PROMPTS, [*before, *collected.kept])
    earlier = known_lines(read_generated(prompts), (one.id for one in before))
    write_generated(context.folder, [*earlier, *_lines(settings, collected, models, seed, prices)])
    if not context.is_dry:
        why = f"It ended because of this: {collected.stopped}. " if collected.stopped else ""
        if weak is None:
            require_records(len(collected.kept), f"new prompts of the step '{settings.name}'", reasons, why + ADVICE)
        if collected.stopped:
            say(f"  {settings.name} ended with {len(collected.kept)} new prompts: {collected.stopped}")
    metrics = _metrics(settings, collected, before, ask.usage, prices)
    if seeds is not None:
        metrics = metrics.model_copy(update={"round": round, "seeds": len(seeds.prompts)})
    (context.folder / ELICITATION).write_text(metrics.model_dump_json(indent=2) + "\n", encoding="utf-8")
    held_out = sum(one.split == "held_out" for one in before)
    return StageResult(
        counts={
            "requests": collected.requests,
            "parsed": collected.parsed,
            "new": len(collected.kept),
            "train": len(before) - held_out + len(collected.kept),
            "held_out": held_out,
        },
        dropped=reasons,
        metrics={"cached": ask.cached, "stopped": collected.stopped},
    )


def written(step: Step, prompts: list[Prompt], ask: Ask, seed: int, shown: Sequence[Prompt] | None = None) -> Collected:
    """What a step's models write.

    Args:
        shown: the training prompts that they see; by default all.
    """
    if shown is not None and not shown:
        collected = Collected(step, prompts, unlike_training=False)
        collected.stopped = "no training prompt of the round before has a difficulty"
        return collected
    match step:
        case Expand():
            return expand(step, prompts, ask, seed, shown)
        case Evolve():
            return evolve(step, prompts, ask, seed, shown)
        case Curate():
            return curate(step, prompts, ask, seed, shown)
        case Magpie():
            return magpie(step, prompts, ask, seed)


def _lines(
    step: Step, collected: Collected, models: Mapping[str, ModelSource], seed: int, prices: Mapping[str, Price]
) -> Iterator[Generated]:
    sampling = SamplingParams(step.temperature, step.max_new_tokens, seed)
    asked = Counter(one.request for one in collected.proposals)
    writers = {name: writer(name, models[name], sampling, prices) for name in {request.author for request in asked}}
    for prompt, one in zip(collected.kept, collected.proposals, strict=True):
        request, reply = one.request, one.reply
        yield writers[one.author].line(prompt.id, request.messages, reply.usage, reply.time, of=asked[request])


def _metrics(
    step: Step, collected: Collected, before: list[Prompt], usage: Mapping[str, Usage], prices: Mapping[str, Price]
) -> ElicitationMetrics:
    priced = all(author in prices for author in usage)
    cost = sum(prices[author].usd(one.prompt_tokens, one.completion_tokens) for author, one in usage.items()) if priced else None
    tokens = sum(one.prompt_tokens + one.completion_tokens for one in usage.values())
    kept = len(collected.kept)
    return ElicitationMetrics(
        step=step.name,
        kind=step.kind,
        models=step.models,
        requests=collected.requests,
        parsed=collected.parsed,
        kept=kept,
        dropped=collected.reasons(),
        stopped=collected.stopped or None,
        calls=sum(one.calls for one in usage.values()),
        prompt_tokens=sum(one.prompt_tokens for one in usage.values()),
        completion_tokens=sum(one.completion_tokens for one in usage.values()),
        tokens_per_prompt=tokens / kept if kept else None,
        usd_per_prompt=cost / kept if kept and cost is not None else None,
        **step_figures(before, collected),
    )
