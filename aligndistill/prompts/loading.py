"""A source to records, with what was left out: prompts, demonstrations, and preferences made elsewhere."""

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from aligndistill.config import Source
from aligndistill.errors import DataError
from aligndistill.prompts.benchmark import BenchmarkRow, read_benchmark_row
from aligndistill.prompts.formats import Format, Judged, format_of, read_demonstration, read_judged, read_prompt
from aligndistill.prompts.rows import BadRow, Row
from aligndistill.prompts.sources import read_rows
from aligndistill.prompts.split import split_of
from aligndistill.records import Demonstration, Prompt, Ranking, Response, Split, candidate_id, prompt_id

T = TypeVar("T")


@dataclass(frozen=True)
class Loaded(Generic[T]):
    """What a source gave.

    Attributes:
        records: in the source's order.
        rows: how many rows were read; `len(records)` plus all of `dropped`.
        dropped: rows left out, by reason.
    """

    records: list[T]
    rows: int
    dropped: dict[str, int]


def load_prompts(source: Source, held_out: float) -> Loaded[Prompt]:
    """The different prompts of a source of any format; a repeated prompt is counted as dropped.

    Args:
        source: where to read.
        held_out: the share of prompts to hold out, see `split_of`.

    Raises:
        DataError: a bad row (unless `on_bad_row: drop`), no prompts, or no prompts in one of the two splits.
        ConfigError: see `read_rows`.
    """

    def read(row: Row, row_format: Format) -> Prompt:
        messages = read_prompt(row.values, row_format)
        identity = prompt_id(messages)
        return Prompt(id=identity, messages=messages, source=row.where, split=split_of(identity, held_out))

    loaded = _without_repeats(_load(source, read), "duplicate prompt", lambda prompt: prompt.id)
    _check_splits(source, held_out, {prompt.id: prompt.split for prompt in loaded.records})
    return loaded


def load_demonstrations(source: Source, held_out: float) -> Loaded[Demonstration]:
    """The demonstrations of a source, in both splits: `prompt` and `completion`, or `messages` that end with the assistant.

    Args:
        source: where to read.
        held_out: the share of prompts to hold out, see `split_of`; the run's own, so that its held-out prompts stay unseen.

    Raises:
        DataError: a bad row (unless `on_bad_row: drop`), or no demonstrations.
        ConfigError: see `read_rows`.
    """

    def read(row: Row, _: Format) -> Demonstration:
        answered = read_demonstration(row.values)
        identity = prompt_id(answered.prompt)
        return Demonstration(
            prompt_id=identity,
            split=split_of(identity, held_out),
            messages=answered.prompt,
            response=answered.response,
        )

    return _load(source, read)


def load_rankings(source: Source, held_out: float) -> Loaded[Ranking]:
    """Ready-made preferences: pairs and rankings, best first, scores on the data's own scale (1 and 0 for a bare pair).

    Rows with the same prompt stay separate rankings; a row that repeats both prompt and responses is dropped.

    Args:
        source: where to read.
        held_out: the share of prompts to hold out, see `split_of`.

    Raises:
        DataError: a bad row (unless `on_bad_row: drop`), no preferences, or none in one of the two splits.
        ConfigError: see `read_rows`.
    """

    def read(row: Row, row_format: Format) -> Ranking:
        _require_preferences(row, row_format)
        return _ranking(read_judged(row.values, row_format), held_out)

    loaded = _without_repeats(_load(source, read), "duplicate row", lambda ranking: (ranking.prompt_id, ranking.responses))
    _check_splits(source, held_out, {ranking.prompt_id: ranking.split for ranking in loaded.records})
    return loaded


def load_judgments(source: Source) -> Loaded[Ranking]:
    """Ready-made preferences as in `load_rankings`, to be looked at and not to be learnt from: nothing is held out.

    Raises:
        DataError: a bad row (unless `on_bad_row: drop`), or no preferences.
        ConfigError: see `read_rows`.
    """

    def read(row: Row, row_format: Format) -> Ranking:
        _require_preferences(row, row_format)
        return _ranking(read_judged(row.values, row_format), held_out=0.0)

    return _without_repeats(_load(source, read), "duplicate row", lambda ranking: (ranking.prompt_id, ranking.responses))


def load_benchmark(source: Source) -> Loaded[BenchmarkRow]:
    """The rows of a file in RewardBench's form, repeated ones too.

    Raises:
        DataError: a bad row (unless `on_bad_row: drop`), or no rows.
        ConfigError: see `read_rows`.
    """
    return _load(source, lambda row, _: read_benchmark_row(row.values))


def _require_preferences(row: Row, row_format: Format) -> None:
    if row_format == "prompts":
        raise DataError(
            f"{row.where}: the rows have prompts but no preferences; the columns are {', '.join(row.values)}. "
            "Preferences are chosen and rejected, or prompt, responses and scores."
        )


def _ranking(judged: Judged, held_out: float) -> Ranking:
    identity = prompt_id(judged.prompt)
    responses = tuple(
        Response(
            text=answer.text,
            score=answer.score,
            author=answer.author,
            candidate_id=candidate_id(identity, answer.author, answer.text),
        )
        for answer in sorted(judged.answers, key=lambda answer: -answer.score)
    )
    return Ranking(prompt_id=identity, split=split_of(identity, held_out), messages=judged.prompt, responses=responses)


def _load(source: Source, read: Callable[[Row, Format], T]) -> Loaded[T]:
    """Read every row; the first readable one decides the format when the source leaves it open."""
    row_format = None if source.format == "auto" else source.format
    records: list[T] = []
    dropped: Counter[str] = Counter()
    for row in read_rows(source):
        try:
            if row.fault is not None:
                raise row.fault
            row_format = row_format or format_of(row)
            records.append(read(row, row_format))
        except BadRow as fault:
            if source.on_bad_row == "error":
                raise DataError(
                    f"{row.where}: {fault}. Mend the row, or set `on_bad_row: drop` to leave such rows out and count them."
                ) from None
            dropped[fault.reason] += 1
    rows = len(records) + dropped.total()
    if not records:
        why = f": all {rows} rows were dropped ({_counts(dropped)})." if rows else ": there are no rows in it."
        raise DataError(f"{source.path}: nothing to use{why}")
    return Loaded(records, rows, dict(dropped))


def _counts(dropped: Counter[str]) -> str:
    return ", ".join(f"{reason}: {count}" for reason, count in dropped.most_common())


def _without_repeats(loaded: Loaded[T], reason: str, key: Callable[[T], Hashable]) -> Loaded[T]:
    first: dict[Hashable, T] = {}
    for record in loaded.records:
        first.setdefault(key(record), record)
    repeats = len(loaded.records) - len(first)
    return Loaded(list(first.values()), loaded.rows, loaded.dropped | ({reason: repeats} if repeats else {}))


def _check_splits(source: Source, held_out: float, split_by_prompt: dict[str, Split]) -> None:
    there = set(split_by_prompt.values())
    for split, name, remedy in (("held_out", "held-out", "a larger"), ("train", "training", "a smaller")):
        if split not in there:
            raise DataError(
                f"{source.path}: no {name} prompts: `held_out: {held_out}` of {len(split_by_prompt)} different prompts leaves "
                f"none. Give more prompts or {remedy} `held_out`."
            )
