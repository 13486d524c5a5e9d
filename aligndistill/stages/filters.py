"""Which rows are kept: prompts.jsonl or demonstrations.jsonl, and dropped.jsonl with the others and why."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from math import exp
from pathlib import Path
from typing import TypeVar

from aligndistill.config.data import Source
from aligndistill.config.filters import Filters, Quality, Within
from aligndistill.config.judges import Judge, Likelihood
from aligndistill.data.filters import Decisions, Drop, balance, decide, prompt_text, row_of
from aligndistill.data.loading import load_demonstrations, load_items, load_prompts
from aligndistill.judges.protocol import Task
from aligndistill.processes.progress import track
from aligndistill.records import Candidate, Demonstration, Dropped, Grade, Message, Prompt, Ranking, Verdict
from aligndistill.stages.context import ModelSource, StageContext, require_records
from aligndistill.stages.files import DEMONSTRATIONS, DROPPED, PROMPTS
from aligndistill.stages.generated import known_lines, read_generated, write_generated
from aligndistill.stages.opening import open_judge
from aligndistill.stages.verdicts import JudgedTask, judge_metrics, judges_read, require_readable, verdicts_of
from aligndistill.store.jsonl import Appender, read_jsonl, write_jsonl
from aligndistill.store.stage import StageResult

Filtered = TypeVar("Filtered", Prompt, Demonstration, Ranking)

ASKED_TO_WRITE = (
    "Write a question or an instruction for an assistant. It should be clear, complete, useful, and possible to answer."
)
"""What a judge of quality is shown as the prompt, where a prompt is the text that it grades."""


def prompts(
    context: StageContext,
    *,
    settings: Filters,
    prompts: Path,
    models: Mapping[str, ModelSource],
    seed: int,
    known: Path | None = None,
) -> StageResult:
    """The prompts that are kept, in both splits.

    Args:
        known: prompts that were kept before, and are again; no model is asked about them.
    """

    def read() -> Iterator[Prompt]:
        return read_jsonl(prompts / PROMPTS, Prompt)

    settled = frozenset(one.id for one in read_jsonl(known / PROMPTS, Prompt)) if known is not None else frozenset()
    decisions, asked = decided(context, read, settings, models, seed, settled=settled)
    counts, dropped = _write(context, read(), decisions, PROMPTS)
    if generated := read_generated(prompts):
        write_generated(context.folder, known_lines(generated, (one.id for one in read_jsonl(context.folder / PROMPTS, Prompt))))
    require_records(counts["train"], "training prompts", dropped)
    require_records(counts["held_out"], "held-out prompts", dropped)
    return StageResult(counts=counts, dropped=dropped, metrics=asked)


def demonstrations(
    context: StageContext,
    *,
    settings: Filters,
    source: Source,
    evaluated: Source | None,
    held_out: float,
    models: Mapping[str, ModelSource],
    seed: int,
) -> StageResult:
    """The demonstrations that are kept.

    Args:
        evaluated: the data of the run's prompts: demonstrations must not contain those that are held out.
    """
    held_out_items = (
        (one.id, prompt_text(one.messages))
        for one in (load_prompts(evaluated, held_out) if evaluated is not None else ())
        if one.split == "held_out"
    )
    loading = load_demonstrations(source, held_out)

    def read() -> Iterator[Demonstration]:
        nonlocal loading
        loading = load_demonstrations(source, held_out)
        return iter(loading)

    decisions, asked = decided(context, read, settings, models, seed, held_out_items)
    counts, dropped = _write(context, read(), decisions, DEMONSTRATIONS)
    require_records(counts["train"], "demonstrations", dropped)
    return StageResult(counts={"rows": loading.rows, **counts}, dropped={**loading.dropped, **dropped}, metrics=asked)


def decided(
    context: StageContext,
    read: Callable[[], Iterator[Filtered]],
    filters: Filters,
    models: Mapping[str, ModelSource],
    seed: int,
    held_out_prompts: Iterable[tuple[str, str]] = (),
    settled: frozenset[str] = frozenset(),
) -> tuple[Decisions, dict[str, int]]:
    """Which rows are kept, by all filters, and what the judge was asked.

    Those filters come first that need no model, so that none is asked about rows that are dropped anyway.

    Args:
        read: reads the rows from the start.
        held_out_prompts, settled: see `decide`. No model is asked about rows that are settled.
    """

    def items() -> Iterator[tuple[str, str]]:
        for source in filters.against:
            yield from ((one.source, prompt_text(one.messages)) for one in load_items(source))

    decisions = decide(map(row_of, read()), filters, items(), held_out_prompts, settled)
    numbers = frozenset(number for number, row in enumerate(map(row_of, read())) if row.id in settled) if settled else frozenset()
    asking = _Asking(context, models, seed, settled=numbers, kept_for_now=context.is_dry)
    if filters.quality is not None:
        asking.quality(read, decisions, filters.quality)
    if filters.ifd is not None:
        asking.difficulty(read, decisions, filters.ifd)
    if filters.perplexity is not None:
        asking.perplexity(read, decisions, filters.perplexity)
    if filters.balance is not None:
        balance(map(row_of, read()), decisions, filters.balance, settled)
    return decisions, judge_metrics(asking.verdicts) if filters.models else {}


def kept_of(records: Iterable[Filtered], decisions: Decisions, dropped: Counter[str], path: Path) -> Iterator[Filtered]:
    """The records that are kept; the others are counted by reason and written with it to `path`."""
    path.unlink(missing_ok=True)  # of an interrupted run
    with Appender(path) as file:
        for record, drop in zip(records, decisions, strict=True):
            if drop is None:
                yield record
                continue
            row = row_of(record)
            dropped[drop.reason] += 1
            file.add([Dropped(id=row.id, reason=drop.reason, nearest=drop.nearest, score=drop.score, text=row.whole)])


def _write(
    context: StageContext, records: Iterable[Filtered], decisions: Decisions, name: str
) -> tuple[dict[str, int], Counter[str]]:
    dropped: Counter[str] = Counter()
    splits: Counter[str] = Counter()

    def kept() -> Iterator[Filtered]:
        for record in kept_of(records, decisions, dropped, context.folder / DROPPED):
            splits[record.split] += 1
            yield record

    write_jsonl(context.folder / name, kept())
    return {"train": splits["train"], "held_out": splits["held_out"]}, dropped


# ------------------------------------------------------------------------------------------------- filters with a model


class _Asking:
    """The filters that ask a model about the rows that are left.

    Args:
        settled: numbers of rows about which no model is asked.
        kept_for_now: keep rows without a grade, in a dry run, which has none.
    """

    def __init__(
        self, context: StageContext, models: Mapping[str, ModelSource], seed: int, *, settled: Set[int], kept_for_now: bool
    ) -> None:
        self._context = context
        self._models = models
        self._seed = seed
        self._settled = settled
        self._kept_for_now = kept_for_now
        self.verdicts: list[Verdict] = []

    def quality(self, read: Callable[[], Iterator[Filtered]], decisions: Decisions, wanted: Quality) -> None:
        """Drop rows with a lower grade, and those whose grade could not be read."""
        grades = self._grades(wanted.judge, [_quality_task(*one) for one in self._left(read(), decisions)], "quality")
        for (number, _), grade in zip(self._left(read(), list(decisions)), grades, strict=True):
            if grade is None:
                self._drop(decisions, number, Drop("quality could not be read"))
            elif grade < wanted.at_least:
                decisions[number] = Drop("low quality", score=grade)

    def difficulty(self, read: Callable[[], Iterator[Filtered]], decisions: Decisions, wanted: Within) -> None:
        """Instruction-following difficulty (arXiv:2308.12032): an answer's mean NLL per token with its prompt, by that without."""
        judge = Likelihood(model=wanted.model)
        left = list(self._left(read(), decisions))
        with_prompt = self._grades(judge, [_task(number, one.messages, _answer(one)) for number, one in left], "ifd")
        alone = self._grades(judge, [_task(number, NOTHING, _answer(one)) for number, one in left], "ifd-alone")
        for (number, _), given, free in zip(left, with_prompt, alone, strict=True):
            ratio = given / free if given is not None and free else None
            self._keep_within(decisions, number, ratio, wanted, "instruction difficulty")

    def perplexity(self, read: Callable[[], Iterator[Filtered]], decisions: Decisions, wanted: Within) -> None:
        """exp(mean NLL per token) of a demonstration's answer after its prompt, or of a prompt by itself."""
        left = list(self._left(read(), decisions))
        tasks = [_task(number, one.messages if isinstance(one, Demonstration) else NOTHING, _answer(one)) for number, one in left]
        grades = self._grades(Likelihood(model=wanted.model), tasks, "perplexity")
        for (number, _), grade in zip(left, grades, strict=True):
            self._keep_within(decisions, number, exp(-grade) if grade is not None else None, wanted, "perplexity")

    def _left(self, records: Iterable[Filtered], decisions: Decisions) -> Iterator[tuple[int, Filtered]]:
        """The records that no filter has dropped yet and that are not settled, each with its number."""
        for number, (record, drop) in enumerate(zip(records, decisions, strict=True)):
            if drop is None and number not in self._settled:
                yield number, record

    def _keep_within(self, decisions: Decisions, number: int, value: float | None, wanted: Within, name: str) -> None:
        low, high = wanted.between
        if value is None:
            self._drop(decisions, number, Drop(f"{name} is not known: the row is too long for the model"))
        elif not low <= value <= high:
            decisions[number] = Drop(f"{name} too {'low' if value < low else 'high'}", score=value)

    def _drop(self, decisions: Decisions, number: int, drop: Drop) -> None:
        if not self._kept_for_now:
            decisions[number] = drop

    def _grades(self, judge: Judge, tasks: Sequence[Task], label: str) -> list[float | None]:
        """The grade of each task's only answer; saved as they arrive, and not asked again by a resumed run."""
        partial = self._context.scratch / f"{label}.jsonl"
        with Appender(partial) as appender:
            done = {one.prompt_id: one for one in read_jsonl(partial, JudgedTask)}
            missing = [task for task in tasks if _value(done.get(task.prompt_id)) is None]
            if missing:
                read_before = Counter(name for one in done.values() for name in judges_read(one))
                opened = open_judge(self._context, judge, self._models, self._seed, read_before=read_before)
                for judged in track(opened.judge(missing), label, len(tasks), len(tasks) - len(missing), self._context.spending):
                    done[judged.prompt_id] = JudgedTask.of(judged)
                    appender.add([done[judged.prompt_id]])
        judged_tasks = [done[task.prompt_id] for task in tasks]
        found = verdicts_of(judged_tasks)
        self.verdicts += found
        if not self._kept_for_now:
            require_readable(self._context, found, label)
        return [_value(one) for one in judged_tasks]


NOTHING = (Message(role="user", content=""),)


def _answer(record: Prompt | Demonstration | Ranking) -> str:
    return record.response if isinstance(record, Demonstration) else prompt_text(record.messages)


def _quality_task(number: int, record: Prompt | Demonstration | Ranking) -> Task:
    asked = record.messages if isinstance(record, Demonstration) else (Message(role="user", content=ASKED_TO_WRITE),)
    return _task(number, asked, _answer(record))


def _task(number: int, messages: tuple[Message, ...], text: str) -> Task:
    """A row's number is its id: rows of one prompt are told apart by it."""
    candidate = Candidate(id=str(number), prompt_id=str(number), text=text, author="data")
    return Task(str(number), messages, (candidate,))


def _value(judged: JudgedTask | None) -> float | None:
    grades = [one.value for one in judged.verdicts if isinstance(one, Grade)] if judged is not None else []
    return grades[0] if grades else None
