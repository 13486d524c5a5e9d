"""candidates.jsonl: the configured models' answers to each prompt, and a data set's, without exact duplicates."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from aligndistill.chat.protocol import SamplingParams
from aligndistill.config.budget import Price
from aligndistill.config.candidates import DEMONSTRATIONS, Candidates
from aligndistill.config.data import Source
from aligndistill.data.loading import load_demonstrations
from aligndistill.processes.ranks import is_main_process
from aligndistill.records import Candidate, Prompt, candidate_id
from aligndistill.stages.context import ModelSource, StageContext, require_records
from aligndistill.stages.files import CANDIDATES, PROMPTS
from aligndistill.stages.generated import write_generated, writer
from aligndistill.stages.sampling import SamplingJob, StoredSample, sample_answers
from aligndistill.store.jsonl import read_jsonl, write_jsonl
from aligndistill.store.stage import StageResult, together


@together
def make(
    context: StageContext,
    *,
    settings: Candidates,
    authors: Mapping[str, ModelSource],
    prompts: Path,
    seed: int,
    held_out: float | None = None,
    prices: Mapping[str, Price] = {},
) -> StageResult:
    """Sample from every author; samples of an interrupted run are reused.

    Args:
        held_out: the run's share of held-out prompts, for reading the demonstrations.
        prices: by the names of the authors; of those that have one.
    """
    asked = list(read_jsonl(prompts / PROMPTS, Prompt))
    job = SamplingJob(
        {prompt.id: prompt for prompt in asked},
        settings.per_prompt,
        settings.max_prompt_tokens,
        SamplingParams(settings.temperature, settings.max_new_tokens, seed),
    )
    sampled: dict[tuple[str, str, int], StoredSample] = {}
    too_long = refused = 0
    for name, author in authors.items():
        result = sample_answers(context, name, author, job, context.scratch / "sampled.jsonl")
        sampled |= {(prompt, name, sample): one for (prompt, sample), one in result.samples.items()}
        too_long += result.too_long
        refused += result.refused

    if not is_main_process():
        return StageResult()
    shown = demonstrated(settings.demonstrations, held_out) if settings.demonstrations and held_out is not None else {}
    counted: Counter[str] = Counter()
    found = list(_distinct(asked, settings, sampled, shown, counted))
    candidates = write_jsonl(context.folder / CANDIDATES, (one for one, _ in found))
    writers = {name: writer(name, author, job.sampling, prices) for name, author in authors.items()}
    write_generated(
        context.folder,
        (
            writers[one.author].line(one.id, job.prompts[one.prompt_id].messages, sample.usage, sample.time)
            for one, sample in found
            if sample is not None
        ),
    )
    given = {"demonstrated": counted.pop("demonstrated", 0)} if shown else {}
    dropped = {reason: count for reason, count in {**counted, "prompt too long": too_long, "refused": refused}.items() if count}
    require_records(candidates, "candidates", dropped)
    usage = [one.usage for one in sampled.values()]
    return StageResult(
        counts={"prompts": len(asked), "sampled": len(sampled), "candidates": candidates, **given},
        dropped=dropped,
        metrics={
            "calls": sum(one.calls for one in usage),
            "completion_tokens": sum(one.completion_tokens for one in usage),
            "stopped": sum(one.finish == "stop" for one in sampled.values()) / len(sampled),
        },
    )


def demonstrated(source: Source, held_out: float) -> dict[str, str]:
    """The data set's answer to each of its prompts, by the prompt's id: the first one, where there are several."""
    found: dict[str, str] = {}
    for one in load_demonstrations(source, held_out):
        found.setdefault(one.prompt_id, one.response)
    return found


def _distinct(
    prompts: Sequence[Prompt],
    settings: Candidates,
    sampled: Mapping[tuple[str, str, int], StoredSample],
    demonstrations: Mapping[str, str],
    counted: Counter[str],
) -> Iterator[tuple[Candidate, StoredSample | None]]:
    """The different answers to each prompt, each with its sample; the others, and demonstrations, are counted in `counted`.

    Of equal texts the first is kept: a demonstration, then those of the authors in their order.
    """
    for prompt in prompts:
        texts: set[str] = set()
        if text := demonstrations.get(prompt.id, "").strip():
            texts.add(text)
            identity = candidate_id(prompt.id, DEMONSTRATIONS, text)
            counted["demonstrated"] += 1
            yield Candidate(id=identity, prompt_id=prompt.id, text=text, author=DEMONSTRATIONS), None
        for author in settings.authors:
            for sample in range(settings.per_prompt):
                one = sampled.get((prompt.id, author, sample))
                if one is None:
                    continue
                if one.unanswered:
                    counted["no answer"] += 1
                elif not one.text.strip():
                    counted["empty"] += 1
                elif one.text in texts:
                    counted["duplicate"] += 1
                else:
                    texts.add(one.text)
                    candidate = Candidate(
                        id=candidate_id(prompt.id, author, one.text),
                        prompt_id=prompt.id,
                        text=one.text,
                        author=author,
                        finish=one.finish,
                        thoughts=one.thoughts,
                    )
                    yield candidate, one
