"""candidates.jsonl: the configured models' answers to each prompt, and a data set's, without exact duplicates."""

from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aligndistill.chat.protocol import SamplingParams
from aligndistill.config.budget import Price
from aligndistill.config.candidates import DEMONSTRATIONS, Candidates
from aligndistill.config.data import Source
from aligndistill.data.loading import load_demonstrations
from aligndistill.processes.ranks import is_main_process
from aligndistill.records import Candidate, Prompt, candidate_id
from aligndistill.stages.context import ModelSource, StageContext, require_records
from aligndistill.stages.files import CANDIDATES, GENERATED, PROMPTS
from aligndistill.stages.generated import writer
from aligndistill.stages.sampling import SampleResult, SamplingJob, StoredSample, sample_answers
from aligndistill.store.jsonl import writing_jsonl
from aligndistill.store.stage import StageResult, together
from aligndistill.store.stored_records import StoredRecords


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
    asked = StoredRecords([prompts / PROMPTS], Prompt, lambda prompt: prompt.id)
    job = SamplingJob(
        asked, settings.per_prompt, settings.max_prompt_tokens, SamplingParams(settings.temperature, settings.max_new_tokens, seed)
    )
    results = {
        name: sample_answers(context, name, author, job, context.scratch / "sampled.jsonl") for name, author in authors.items()
    }
    if not is_main_process():
        return StageResult()
    shown = demonstrated(settings.demonstrations, held_out) if settings.demonstrations and held_out is not None else {}
    writers = {name: writer(name, author, job.sampling, prices) for name, author in authors.items()}
    tally = _Tally()
    candidates = 0
    with writing_jsonl(context.folder / CANDIDATES) as add, writing_jsonl(context.folder / GENERATED) as add_line:
        for prompt in asked.values():
            answers = {name: _of_prompt(results[name], prompt.id, settings.per_prompt) for name in settings.authors}
            for candidate, sample in _distinct(prompt, shown.get(prompt.id, ""), answers, tally):
                add(candidate)
                candidates += 1
                if sample is not None:
                    add_line(writers[candidate.author].line(candidate.id, prompt.messages, sample.usage, sample.time))
    given = {"demonstrated": tally.demonstrated} if shown else {}
    too_long, refused = (sum(getattr(one, of) for one in results.values()) for of in ("too_long", "refused"))
    reasons = {**tally.dropped, "prompt too long": too_long, "refused": refused}
    dropped = {reason: count for reason, count in reasons.items() if count}
    require_records(candidates, "candidates", dropped)
    return StageResult(
        counts={"prompts": len(asked), "sampled": tally.sampled, "candidates": candidates, **given},
        dropped=dropped,
        metrics={
            "calls": tally.calls,
            "completion_tokens": tally.completion_tokens,
            "stopped": tally.stopped / tally.sampled if tally.sampled else None,
        },
    )


def demonstrated(source: Source, held_out: float) -> dict[str, str]:
    """The data set's answer to each of its prompts, by the prompt's id: the first one, where there are several."""
    found: dict[str, str] = {}
    for one in load_demonstrations(source, held_out):
        found.setdefault(one.prompt_id, one.response)
    return found


@dataclass
class _Tally:
    """Counts of all samples; `dropped` by reason."""

    sampled: int = 0
    stopped: int = 0
    calls: int = 0
    completion_tokens: int = 0
    demonstrated: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    def add(self, sample: StoredSample) -> None:
        self.sampled += 1
        self.stopped += sample.finish == "stop"
        self.calls += sample.usage.calls
        self.completion_tokens += sample.usage.completion_tokens


def _of_prompt(result: SampleResult, prompt: str, count: int) -> list[StoredSample]:
    return [one for number in range(count) if (one := result.samples.get((prompt, number))) is not None]


def _distinct(
    prompt: Prompt, demonstration: str, answers: Mapping[str, Sequence[StoredSample]], tally: _Tally
) -> Iterator[tuple[Candidate, StoredSample | None]]:
    """The different answers to a prompt, each with its sample; all are counted in `tally`.

    Of equal texts the first is kept: a demonstration, then those of the authors in their order.
    """
    texts: set[str] = set()
    if text := demonstration.strip():
        texts.add(text)
        tally.demonstrated += 1
        identity = candidate_id(prompt.id, DEMONSTRATIONS, text)
        yield Candidate(id=identity, prompt_id=prompt.id, text=text, author=DEMONSTRATIONS), None
    for author, samples in answers.items():
        for sample in samples:
            tally.add(sample)
            if (reason := _why_dropped(sample, texts)) is not None:
                tally.dropped[reason] += 1
                continue
            texts.add(sample.text)
            candidate = Candidate(
                id=candidate_id(prompt.id, author, sample.text),
                prompt_id=prompt.id,
                text=sample.text,
                author=author,
                finish=sample.finish,
                thoughts=sample.thoughts,
            )
            yield candidate, sample


def _why_dropped(sample: StoredSample, texts: Container[str]) -> str | None:
    """Why a sample is no candidate beside those with these texts."""
    if sample.unanswered:
        return "no answer"
    if not sample.text.strip():
        return "empty"
    return "duplicate" if sample.text in texts else None
