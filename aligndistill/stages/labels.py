"""candidates.jsonl of labels: a model's answers to the training prompts, as it gives them with an instruction and examples."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

from aligndistill.chat.protocol import SamplingParams
from aligndistill.config.budget import Price
from aligndistill.config.data import Source
from aligndistill.config.labels import LabelRequest, Selection
from aligndistill.config.plugins import load_plugin
from aligndistill.data.loading import load_demonstrations
from aligndistill.elicitation.labelling import (
    MENTIONS_HINT,
    NO_ANSWER,
    label_request,
    mentions_hint,
    nearest_examples,
    read_reply,
    why_dropped,
    with_hint,
)
from aligndistill.errors import DataError
from aligndistill.judges.domains import EXAMPLES, INSTRUCTION, domain_file, text_of
from aligndistill.processes.ranks import is_main_process
from aligndistill.records import Candidate, Demonstration, Message, Prompt, candidate_id, group_by_prompt, plain_prompt
from aligndistill.stages.context import ModelSource, StageContext, require_records
from aligndistill.stages.files import CANDIDATES, PROMPTS
from aligndistill.stages.generated import Generated, Writer, known_lines, read_generated, write_generated, writer
from aligndistill.stages.sampling import SampleResult, SamplingJob, StoredSample, sample_answers
from aligndistill.store.artifacts import read_manifest
from aligndistill.store.jsonl import read_jsonl, write_jsonl
from aligndistill.store.stage import StageResult, together

ANY_TRUE = 1.0
"""The lowest value of a function that accepts an answer, so that it may return booleans."""

ADVICE = (
    "A prompt with its instruction and examples must fit label.max_prompt_tokens and, with label.max_new_tokens, the model's "
    "positions; a reply is cut off at label.max_new_tokens."
)

HINTED = "hinted"
"""Behind the author of an answer that was given with a hint."""


@together
def make(
    context: StageContext,
    *,
    settings: LabelRequest,
    authors: Mapping[str, ModelSource],
    prompts: Path,
    held_out: float,
    seed: int,
    prices: Mapping[str, Price] = {},
) -> StageResult:
    """Ask the model about every training prompt; answers of an interrupted run are reused.

    Args:
        authors: the labelling model, by its name.
        held_out: the run's held-out share: examples of held-out prompts are not shown.
        prices: by the name of the labelling model, if it has one.
    """
    ((name, author),) = authors.items()
    asked = training_prompts(prompts)
    conversations = Conversations(settings, held_out)
    job = _job(settings, {prompt.id: conversations.of(prompt) for prompt in asked}, asked, seed)
    result = sample_answers(context, name, author, job, context.scratch / "sampled.jsonl")
    if not is_main_process():
        return StageResult()
    found, dropped = _usable(result, asked, _expected(context, settings), name)
    written = _lines(found, job, writer(name, author, job.sampling, prices))
    return _write(context, [one for one, _ in found], dropped, asked, result, written)


@together
def hinted(
    context: StageContext,
    *,
    settings: LabelRequest,
    selection: Selection,
    references: Source,
    authors: Mapping[str, ModelSource],
    prompts: Path,
    labels: Path,
    held_out: float,
    seed: int,
    prices: Mapping[str, Price] = {},
) -> StageResult:
    """Ask again, with the right answer as a hint, about the prompts of which the function accepts no answer (STaR).

    A prompt without a reference is not asked again. The first answers stay.
    """
    ((name, author),) = authors.items()
    asked = training_prompts(prompts)
    before = group_by_prompt(read_jsonl(labels / CANDIDATES, Candidate))
    accepts = nothing_accepted if context.is_dry else partial(accepted_by, selection, settings)
    right = {one.prompt_id: one.response for one in load_demonstrations(references, held_out)}
    failed = [prompt for prompt in asked if not accepts(prompt, before[prompt.id])]
    hints = [prompt for prompt in failed if prompt.id in right]
    conversations = Conversations(settings, held_out)
    turns = {prompt.id: with_hint(conversations.of(prompt), right[prompt.id]) for prompt in hints}
    job = _job(settings, turns, hints, seed)
    result = sample_answers(context, name, author, job, context.scratch / "sampled.jsonl")
    if not is_main_process():
        return StageResult()
    found, dropped = _usable(result, hints, _expected(context, settings), f"{name}-{HINTED}")
    after = group_by_prompt(one for one, _ in found if not mentions_hint(one.text))
    dropped[MENTIONS_HINT] += sum(one.samples for one, _ in found if mentions_hint(one.text))
    dropped["no reference for a hint"] += len(failed) - len(hints)
    joined = [one for prompt in asked for one in (*before[prompt.id], *after[prompt.id])]
    written = _lines(found, job, writer(name, author, job.sampling, prices))
    return _write(context, joined, dropped_by(labels) + dropped, asked, result, read_generated(labels) | written)


def dropped_by(stage: Path) -> Counter[str]:
    """What a finished stage dropped, by reason; nothing in a dry run, where it may not be finished."""
    manifest = read_manifest(stage)
    return Counter(manifest.dropped if manifest is not None else {})


def training_prompts(prompts: Path) -> list[Prompt]:
    """The prompts that are labelled: none that is held out."""
    return [prompt for prompt in read_jsonl(prompts / PROMPTS, Prompt) if prompt.split == "train"]


class Conversations:
    """What the labelling model sees of each prompt.

    Raises:
        ConfigError, DataError: the instruction or the examples cannot be read, or lack what they need.
    """

    def __init__(self, settings: LabelRequest, held_out: float) -> None:
        self._settings = settings
        self._instruction = self._read_instruction()
        self._examples = self._read_examples(held_out)

    def of(self, prompt: Prompt) -> tuple[Message, ...]:
        """The conversation for one prompt."""
        chosen, settings = self._examples, self._settings.examples
        if settings is not None and settings.choose == "nearest":
            chosen = nearest_examples(prompt, self._examples, settings.per_prompt)
        elif settings is not None:
            chosen = [one for one in self._examples if one.prompt_id != prompt.id][: settings.per_prompt]
        return label_request(prompt.messages, self._instruction, chosen, self._settings.rationale, prompt.context)

    def _read_instruction(self) -> str:
        if self._settings.instruction is not None:
            return text_of(Path(self._settings.instruction), "instruction")
        if self._settings.domain is not None:
            return text_of(domain_file(self._settings.domain, INSTRUCTION), "instruction")
        return ""

    def _read_examples(self, held_out: float) -> list[Demonstration]:
        source: Source | None = self._settings.examples
        if source is None and self._settings.domain is not None:
            source = Source(path=str(domain_file(self._settings.domain, EXAMPLES)))
            if self._settings.rationale != "none":
                return []  # a domain's examples have no reasons in front of their answers
        return examples_of(source, held_out, self._settings) if source is not None else []


def examples_of(source: Source, held_out: float, settings: LabelRequest) -> list[Demonstration]:
    """The worked examples whose prompts are not held out.

    Raises:
        DataError: there are none, or one has no `Answer:` although reasons are asked for.
    """
    read = list(load_demonstrations(source, held_out))
    found = [one for one in read if one.split == "train"]
    if not found:
        raise DataError(f"{source.path}: all {len(read)} examples have prompts that are held out in this run: use other examples.")
    for one in found:
        if read_reply(one.response, settings.rationale) is None:
            raise DataError(
                f"{source.path}: with rationale: {settings.rationale}, each example gives reasons first, and then its answer on a "
                f"line that begins with 'Answer:', but one is {one.response[:80]!r}."
            )
    return found


def accepted_by(selection: Selection, settings: LabelRequest, prompt: Prompt, candidates: Iterable[Candidate]) -> bool:
    """Whether the function accepts at least one of the answers."""
    return any(value >= least_value(selection) for value in values_of(selection, settings, prompt, list(candidates)).values())


def nothing_accepted(prompt: Prompt, candidates: Iterable[Candidate]) -> bool:
    """What a dry run assumes, which calls no function of users."""
    return False


def least_value(selection: Selection) -> float:
    """The lowest value of a function that accepts an answer."""
    return ANY_TRUE if selection.at_least is None else selection.at_least


def values_of(selection: Selection, settings: LabelRequest, prompt: Prompt, candidates: list[Candidate]) -> dict[str, float]:
    """The function's value of each candidate's answer, without its rationale, by candidate id.

    Raises:
        DataError: the function does not return one number per answer.
    """
    assert selection.function is not None, "the config's checks see to that"
    if not candidates:
        return {}
    reads = [read_reply(one.text, settings.rationale) for one in candidates]
    answers = [read.answer for read in reads if read is not None]
    values = list(load_plugin(selection.function)(plain_prompt(prompt.messages), answers))
    if len(values) != len(candidates):
        raise DataError(
            f"{selection.function} returned {len(values)} values for {len(candidates)} answers: it must give one for each."
        )
    return {one.id: float(value) for one, value in zip(candidates, values, strict=True)}


def _job(settings: LabelRequest, turns: Mapping[str, tuple[Message, ...]], prompts: Iterable[Prompt], seed: int) -> SamplingJob:
    return SamplingJob(
        {prompt.id: prompt.model_copy(update={"messages": turns[prompt.id]}) for prompt in prompts},
        settings.per_prompt,
        settings.max_prompt_tokens,
        SamplingParams(settings.temperature, settings.max_new_tokens, seed),
    )


def _expected(context: StageContext, settings: LabelRequest) -> LabelRequest:
    """What replies are read by: the placeholders of a dry run have no reasons."""
    return settings.model_copy(update={"rationale": "none"}) if context.is_dry else settings


def _usable(
    result: SampleResult, prompts: Iterable[Prompt], settings: LabelRequest, author: str
) -> tuple[list[tuple[Candidate, StoredSample]], Counter[str]]:
    """The different answers of each prompt, each counting its samples and with the first of them; and what was dropped."""
    dropped: Counter[str] = Counter({"prompt too long": result.too_long, "rejected by the server": result.refused})
    found: list[tuple[Candidate, StoredSample]] = []
    for prompt in prompts:
        texts: defaultdict[str, list[StoredSample]] = defaultdict(list)
        for sample in range(settings.per_prompt):
            one = result.samples.get((prompt.id, sample))
            if one is None:
                continue
            text = one.text.strip()
            reason = NO_ANSWER if one.unanswered else why_dropped(text, one.finish, settings.rationale, settings.refusals == "drop")
            if reason is not None:
                dropped[reason] += 1
            else:
                texts[text].append(one)
        for text, gave in texts.items():
            identity = candidate_id(prompt.id, author, text)
            found.append((Candidate(id=identity, prompt_id=prompt.id, text=text, author=author, samples=len(gave)), gave[0]))
    return found, dropped


def _lines(found: Iterable[tuple[Candidate, StoredSample]], job: SamplingJob, model: Writer) -> dict[str, Generated]:
    """The line of each answer, by its id."""
    return {one.id: model.line(one.id, job.prompts[one.prompt_id].messages, sample.usage, sample.time) for one, sample in found}


def _write(
    context: StageContext,
    found: list[Candidate],
    dropped: Mapping[str, int],
    asked: list[Prompt],
    result: SampleResult,
    written: Mapping[str, Generated],
) -> StageResult:
    reasons = {reason: count for reason, count in dropped.items() if count}
    require_records(len(found), "labels", reasons, ADVICE)
    write_jsonl(context.folder / CANDIDATES, found)
    write_generated(context.folder, known_lines(written, (one.id for one in found)))
    usage = [one.usage for one in result.samples.values()]
    return StageResult(
        counts={"prompts": len(asked), "sampled": len(result.samples), "candidates": len(found)},
        dropped=reasons,
        metrics={
            "calls": sum(one.calls for one in usage),
            "prompt_tokens": sum(one.prompt_tokens for one in usage),
            "completion_tokens": sum(one.completion_tokens for one in usage),
        },
    )
