"""candidates.jsonl with revisions: each answer criticised by a principle and revised, beside its original or in its place."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aligndistill.chat.protocol import SamplingParams
from aligndistill.config.budget import Price
from aligndistill.config.labels import Rationale, Revise
from aligndistill.config.models import EndpointModel
from aligndistill.data.refusals import is_refusal
from aligndistill.elicitation.labelling import why_dropped
from aligndistill.elicitation.revision import (
    author_of_revision,
    bad_critique,
    bad_revision,
    critique_request,
    principle_of,
    revised_text,
    revision_request,
)
from aligndistill.elicitation.texts import passages, with_system
from aligndistill.judges.domains import GENERAL, PRINCIPLES, domain_file, lines_of
from aligndistill.judges.sanitising import sanitised
from aligndistill.processes.ranks import is_main_process
from aligndistill.records import Candidate, Message, Prompt, candidate_id, plain_prompt
from aligndistill.stages.context import ModelSource, StageContext
from aligndistill.stages.files import CANDIDATES, PROMPTS
from aligndistill.stages.generated import Generated, Writer, known_lines, read_generated, write_generated, writer
from aligndistill.stages.labels import dropped_by
from aligndistill.stages.sampling import SamplingJob, StoredSample, sample_answers
from aligndistill.store.jsonl import read_jsonl, write_jsonl
from aligndistill.store.stage import StageResult, together

TOO_LONG, REJECTED = "prompt too long", "rejected by the server"


@dataclass
class _Draft:
    """An answer while it is revised.

    Attributes:
        text: the newest revision, at first the answer itself.
        request: the newest request for a critique.
        failed: why no further step is taken.
        line: that of the newest revision; None before there is one.
    """

    original: Candidate
    prompt: Prompt
    text: str
    request: tuple[Message, ...] = ()
    failed: str | None = None
    revised: int = 0
    line: Generated | None = None


@together
def make(
    context: StageContext,
    *,
    settings: Revise,
    replaces: bool,
    authors: Mapping[str, ModelSource],
    prompts: Path,
    candidates: Path,
    seed: int,
    rationale: Rationale = "none",
    prices: Mapping[str, Price] = {},
) -> StageResult:
    """Criticise and revise each candidate `times` times; its last revision joins the candidates, or replaces the original.

    An answer whose later step fails has the revision of the steps before it. What failed is counted by reason.

    Args:
        replaces: whether a revision takes the place of its original.
        authors: the model that criticises and revises, by its name.
        rationale: what the answers have besides an answer; revisions without it are dropped.
        prices: by the name of the model, if it has one.
    """
    ((name, model),) = authors.items()
    of_id = {prompt.id: prompt for prompt in read_jsonl(prompts / PROMPTS, Prompt)}
    originals = [one for one in read_jsonl(candidates / CANDIDATES, Candidate) if one.prompt_id in of_id]
    drafts = {one.id: _Draft(one, of_id[one.prompt_id], one.text) for one in originals}
    principles = read_principles(settings)
    unasked = REJECTED if isinstance(model, EndpointModel) else TOO_LONG
    usage: list[StoredSample] = []
    sampling = SamplingParams(settings.temperature, settings.max_new_tokens, seed)
    reviser = writer(name, model, sampling, prices)

    def ask(step: str, request: Callable[[_Draft], tuple[Message, ...]], last: bool) -> dict[str, StoredSample]:
        asked = {key: draft for key, draft in drafts.items() if draft.failed is None}
        turns = {key: draft.prompt.model_copy(update={"messages": request(draft)}) for key, draft in asked.items()}
        job = SamplingJob(turns, 1, settings.max_prompt_tokens, sampling)
        partial = context.scratch / f"{step.replace(' ', '-')}.jsonl"  # one for each step: processes read one while others write on
        result = sample_answers(context, f"{name} ({step})", model, job, partial, everywhere=not last)
        usage.extend(result.samples.values())
        return {key: one for (key, _), one in result.samples.items() if key in asked}

    for number in range(settings.times):
        for draft in drafts.values():
            draft.request = _critique_of(draft, principles, number, seed)
        critiques = ask(f"critique {number + 1}", lambda draft: draft.request, last=False)
        for key, draft in drafts.items():
            draft.failed = draft.failed or _failure_of_critique(critiques.get(key), unasked)
        revise = {key: critique.text.strip() for key, critique in critiques.items()}
        revisions = ask(
            f"revision {number + 1}",
            lambda draft: revision_request(draft.request, revise[draft.original.id]),  # noqa: B023 (called in this step)
            last=number + 1 == settings.times,
        )
        for key, draft in drafts.items():
            draft.failed = draft.failed or _failure_of_revision(revisions.get(key), draft.text, rationale, unasked)
            if draft.failed is None:
                _take(draft, revisions[key], revision_request(draft.request, revise[key]), reviser)
    if not is_main_process():
        return StageResult()
    return _write(context, list(drafts.values()), name, replaces, candidates, usage)


def read_principles(settings: Revise) -> Sequence[str]:
    """The principles that are given, or those of the domain.

    Raises:
        ConfigError: a file cannot be read, or has none.
    """
    if isinstance(settings.principles, tuple):
        return [one for one in settings.principles if one.strip()]
    if settings.principles is not None:
        return lines_of(Path(settings.principles), "principles")
    return lines_of(domain_file(settings.domain or GENERAL, PRINCIPLES), "principles")


def _critique_of(draft: _Draft, principles: Sequence[str], step: int, seed: int) -> tuple[Message, ...]:
    drawn = principle_of(principles, draft.original.id, step, seed)
    prompt = sanitised(plain_prompt(with_system(draft.prompt.messages, before=[passages(draft.prompt.context)])))
    return critique_request(prompt, sanitised(draft.text), sanitised(drawn), seed)


def _failure_of_critique(critique: StoredSample | None, unasked: str) -> str | None:
    if critique is None:
        return unasked
    return bad_critique(critique.text.strip(), critique.finish, is_refusal(critique.text))


def _failure_of_revision(revision: StoredSample | None, before: str, rationale: Rationale, unasked: str) -> str | None:
    if revision is None:
        return unasked
    text = revised_text(revision.text)
    failure = bad_revision(text, revision.finish, before, is_refusal(text) and not is_refusal(before))
    return failure or why_dropped(text, revision.finish, rationale, drops_refusals=False)


def _take(draft: _Draft, revision: StoredSample, asked: tuple[Message, ...], reviser: Writer) -> None:
    draft.text = revised_text(revision.text)
    draft.revised += 1
    identity = revision_of(draft.original, draft.text, reviser.author).id
    draft.line = reviser.line(identity, asked, revision.usage, revision.time)


def _write(
    context: StageContext,
    drafts: Sequence[_Draft],
    reviser: str,
    replaces: bool,
    candidates: Path,
    usage: Sequence[StoredSample],
) -> StageResult:
    of_prompt: dict[str, list[Candidate]] = {}
    texts = {(one.prompt.id, one.original.text) for one in drafts if not (replaces and one.revised)}
    dropped = Counter(draft.failed for draft in drafts if draft.failed is not None)
    more: Counter[tuple[str, str]] = Counter()
    revised = 0
    lines = read_generated(candidates)
    for draft in drafts:
        known = of_prompt.setdefault(draft.prompt.id, [])
        if not (replaces and draft.revised):
            known.append(draft.original)
        if not draft.revised:
            continue
        if (draft.prompt.id, draft.text) in texts:
            dropped["duplicate"] += 1
            if replaces:  # its original is gone, too: its samples are votes for the text that they are now
                more[draft.prompt.id, draft.text] += draft.original.samples
            continue
        texts.add((draft.prompt.id, draft.text))
        known.append(revision_of(draft.original, draft.text, reviser))
        revised += 1
        if draft.line is not None:
            lines[draft.line.id] = draft.line
    everyone = [
        one.model_copy(update={"samples": one.samples + more.pop((one.prompt_id, one.text), 0)})
        for many in of_prompt.values()
        for one in many
    ]
    write_jsonl(context.folder / CANDIDATES, everyone)
    write_generated(context.folder, known_lines(lines, (one.id for one in everyone)))
    return StageResult(
        counts={"originals": len(drafts), "revisions": revised, "candidates": len(everyone)},
        dropped={**dropped_by(candidates), **{f"revision: {reason}": count for reason, count in dropped.items()}},
        metrics={
            "calls": sum(one.usage.calls for one in usage),
            "prompt_tokens": sum(one.usage.prompt_tokens for one in usage),
            "completion_tokens": sum(one.usage.completion_tokens for one in usage),
        },
    )


def revision_of(original: Candidate, text: str, reviser: str) -> Candidate:
    """A revision as a candidate with its own author."""
    author = author_of_revision(original, reviser)
    return Candidate(
        id=candidate_id(original.prompt_id, author, text),
        prompt_id=original.prompt_id,
        text=text,
        author=author,
        samples=original.samples,
        revises=original.id,
    )
