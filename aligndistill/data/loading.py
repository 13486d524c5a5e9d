"""Loads records from a source and counts dropped rows: prompts, demonstrations, and existing preferences."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from aligndistill.config.data import Source
from aligndistill.data.benchmark import BenchmarkRow, read_benchmark_row
from aligndistill.data.files import BadRow, SourceRow
from aligndistill.data.formats import (
    Format,
    RankedRow,
    context_of,
    format_of,
    lineage_of,
    read_demonstration,
    read_judged,
    read_prompt,
)
from aligndistill.data.sources import read_rows
from aligndistill.data.split import split_of
from aligndistill.errors import DataError
from aligndistill.records import Demonstration, Lineage, Prompt, Ranking, Response, Split, candidate_id, content_hash, prompt_id

T = TypeVar("T")

MAX_BAD_ROWS = 5


@dataclass(frozen=True)
class Loaded(Generic[T]):
    """The records of a source.

    Attributes:
        records: in the source's order.
        rows: how many rows were read: `len(records)` plus the sum of `dropped`.
        dropped: dropped rows, by reason.
    """

    records: list[T]
    rows: int
    dropped: dict[str, int]


class Loading(Generic[T]):
    """A source that is read lazily, once, during iteration; the counts are final at its end.

    Attributes:
        rows, dropped: as in `Loaded`, for the rows read so far.
        bad_rows: how many of the dropped rows could not be read.
        first_bad_rows: the first of them, each with its number and the reason; at most `MAX_BAD_ROWS`.
    """

    def __init__(self, records: Callable[["Loading[T]"], Iterator[T]]) -> None:
        self.rows = 0
        self.dropped: Counter[str] = Counter()
        self.bad_rows = 0
        self.first_bad_rows: list[str] = []
        self._records = records(self)

    def __iter__(self) -> Iterator[T]:
        return self._records

    def all(self) -> Loaded[T]:
        """All records, in memory."""
        records = list(self)
        return Loaded(records, self.rows, dict(self.dropped))


def load_prompts(source: Source, held_out: float) -> Loading[Prompt]:
    """The distinct prompts of a source of any format; duplicates are counted as dropped.

    Prompts that a model wrote in another run keep their lineage, and are in the split of their root: a whole line is held out, or
    none of it.

    Args:
        source: where to read.
        held_out: the share of prompts to hold out, see `split_of`.

    Raises:
        DataError: a bad row (unless `on_bad_row: drop`), no prompts, or no prompts in one of the two splits.
        ConfigError: see `read_rows`.
    """

    def read(row: SourceRow, row_format: Format) -> Prompt:
        messages = read_prompt(row.values, row_format)
        identity = prompt_id(messages)
        lineage = lineage_of(row.values)
        split = _split_of_root(identity, lineage, held_out)
        context = context_of(row.values)
        return Prompt(id=identity, messages=messages, source=row.where, split=split, lineage=lineage, context=context)

    def records(loading: Loading[Prompt]) -> Iterator[Prompt]:
        different = _without_repeats(loading, _read(loading, source, read), "duplicate prompt", lambda prompt: prompt.id)
        return _in_both_splits(source, held_out, different, lambda prompt: (prompt.id, prompt.split))

    return Loading(records)


def load_items(source: Source) -> Loading[Prompt]:
    """The prompts of an evaluation's data, all held out, with repeats.

    Raises:
        DataError: a bad row (unless `on_bad_row: drop`), or no prompts.
        ConfigError: see `read_rows`.
    """

    def read(row: SourceRow, row_format: Format) -> Prompt:
        messages = read_prompt(row.values, row_format)
        return Prompt(id=prompt_id(messages), messages=messages, source=row.where, split="held_out")

    return Loading(lambda loading: _read(loading, source, read))


def load_demonstrations(source: Source, held_out: float) -> Loading[Demonstration]:
    """The demonstrations of a source, in both splits: `prompt` and `completion`, or `messages` that end with the assistant.

    Args:
        source: where to read.
        held_out: the share of prompts to hold out, see `split_of`; use the run's value, so that held-out prompts stay unseen.

    Raises:
        DataError: a bad row (unless `on_bad_row: drop`), or no demonstrations.
        ConfigError: see `read_rows`.
    """

    def read(row: SourceRow, _: Format) -> Demonstration:
        answered = read_demonstration(row.values)
        identity = prompt_id(answered.prompt)
        return Demonstration(
            prompt_id=identity,
            split=_split_of_root(identity, lineage_of(row.values), held_out),
            messages=answered.prompt,
            response=answered.response,
        )

    return Loading(lambda loading: _read(loading, source, read))


def load_rankings(source: Source, held_out: float) -> Loading[Ranking]:
    """Existing preferences: pairs and rankings, best first, scores on the data's own scale (1 and 0 for a pair without scores).

    Rows with the same prompt stay separate rankings; a row that repeats both prompt and responses is dropped. A prompt's
    split is that of its root, as in `load_prompts`.

    Args:
        source: where to read.
        held_out: the share of prompts to hold out, see `split_of`.

    Raises:
        DataError: a bad row (unless `on_bad_row: drop`), no preferences, or none in one of the two splits.
        ConfigError: see `read_rows`.
    """

    def read(row: SourceRow, row_format: Format) -> Ranking:
        _require_preferences(row, row_format)
        judged = read_judged(row.values, row_format)
        return _ranking(judged, _split_of_root(prompt_id(judged.prompt), lineage_of(row.values), held_out))

    def records(loading: Loading[Ranking]) -> Iterator[Ranking]:
        different = _without_repeats(loading, _read(loading, source, read), "duplicate row", _row_key)
        return _in_both_splits(source, held_out, different, lambda ranking: (ranking.prompt_id, ranking.split))

    return Loading(records)


def load_judgments(source: Source) -> Loading[Ranking]:
    """Existing preferences as in `load_rankings`, for analysis rather than training: nothing is held out.

    Raises:
        DataError: a bad row (unless `on_bad_row: drop`), or no preferences.
        ConfigError: see `read_rows`.
    """

    def read(row: SourceRow, row_format: Format) -> Ranking:
        _require_preferences(row, row_format)
        return _ranking(read_judged(row.values, row_format), "train")

    return Loading(lambda loading: _without_repeats(loading, _read(loading, source, read), "duplicate row", _row_key))


def load_benchmark(source: Source) -> Loading[BenchmarkRow]:
    """The rows of a file in RewardBench's format, including duplicates.

    Raises:
        DataError: a bad row (unless `on_bad_row: drop`), or no rows.
        ConfigError: see `read_rows`.
    """
    return Loading(lambda loading: _read(loading, source, lambda row, _: read_benchmark_row(row.values)))


def _split_of_root(identity: str, lineage: Lineage | None, held_out: float) -> Split:
    return split_of(lineage.root if lineage is not None else identity, held_out)


def _require_preferences(row: SourceRow, row_format: Format) -> None:
    if row_format == "prompts":
        raise DataError(
            f"{row.where}: the rows have prompts but no preferences; the columns are {', '.join(row.values)}. "
            "Preferences are chosen and rejected, or prompt, responses and scores."
        )


def _ranking(judged: RankedRow, split: Split) -> Ranking:
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
    return Ranking(prompt_id=identity, split=split, messages=judged.prompt, responses=responses)


def _read(loading: Loading[T], source: Source, read: Callable[[SourceRow, Format], T]) -> Iterator[T]:
    """Read every row; with `format: auto` the first readable row determines the format."""
    row_format = None if source.format == "auto" else source.format
    for row in read_rows(source):
        loading.rows += 1
        try:
            if row.error is not None:
                raise row.error
            row_format = row_format or format_of(row)
            record = read(row, row_format)
        except BadRow as error:
            if source.on_bad_row == "error":
                raise DataError(
                    f"{row.where}: {error}. Fix the row, or set `on_bad_row: drop` to drop and count such rows."
                ) from None
            loading.dropped[error.reason] += 1
            loading.bad_rows += 1
            if len(loading.first_bad_rows) < MAX_BAD_ROWS:
                loading.first_bad_rows.append(f"{row.where}: {error}")
            continue
        yield record
    if loading.dropped.total() == loading.rows:
        why = f": all {loading.rows} rows were dropped ({_counts(loading.dropped)})." if loading.rows else ": it has no rows."
        raise DataError(f"{source.path}: no usable rows{why}")


def _counts(dropped: Counter[str]) -> str:
    return ", ".join(f"{reason}: {count}" for reason, count in dropped.most_common())


def _row_key(ranking: Ranking) -> str:
    return content_hash(ranking.prompt_id, *(f"{response.candidate_id} {response.score!r}" for response in ranking.responses))


def _without_repeats(loading: Loading[T], records: Iterator[T], reason: str, key: Callable[[T], str]) -> Iterator[T]:
    """`key` gives a record's hash; only the hashes are kept in memory."""
    seen: set[int] = set()
    for record in records:
        hashed = int(key(record), 16)
        if hashed in seen:
            loading.dropped[reason] += 1
        else:
            seen.add(hashed)
            yield record


def _in_both_splits(
    source: Source, held_out: float, records: Iterator[T], prompt_and_split: Callable[[T], tuple[str, Split]]
) -> Iterator[T]:
    """The records; raises an error at the end if a split has none."""
    prompts: set[int] = set()
    there: set[Split] = set()
    for record in records:
        identity, split = prompt_and_split(record)
        prompts.add(int(identity, 16))
        there.add(split)
        yield record
    for split_name, name, remedy in (("held_out", "held-out", "a larger"), ("train", "training", "a smaller")):
        if split_name not in there:
            raise DataError(
                f"{source.path}: no {name} prompts: `held_out: {held_out}` of {len(prompts)} different prompts leaves "
                f"none. Use more prompts or {remedy} `held_out`."
            )
