"""An open index: which samples a query finds, and their records."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aligndistill.commands.view.flags import CELL_FILTERS, PROMPT_FILTERS
from aligndistill.commands.view.sample_query import HUMAN_FILTERS, MEASURES, NO_VOTES, PAGE_ROWS, SampleQuery, Votes


@dataclass(frozen=True)
class Neighbours:
    """What is beside a prompt in a query's result.

    Attributes:
        total: how many prompts there are.
        place: that of the prompt, from 1; None if it is not among them.
        before, after: the ids of the prompts beside it.
    """

    total: int
    place: int | None = None
    before: str | None = None
    after: str | None = None


class Index:
    """An open index; every method is a question to it."""

    def __init__(self, database: sqlite3.Connection, votes: Votes = NO_VOTES) -> None:
        self.db = database
        self.votes = votes
        self._found: dict[str, set[int]] = {}
        rows = database.execute("select a.name, a.id from authors a where exists (select 1 from cells where author = a.id)")
        order = {"start": -2, "teacher": -1}
        self.models: dict[str, int] = dict(sorted(rows, key=lambda row: (order.get(row[0], 0), row[1])))
        self.authors: dict[str, int] = dict(database.execute("select name, id from authors"))
        self.measures = [name for name in MEASURES if self._one(f"select exists (select 1 from cells where {name} is not null)")]

    @property
    def students(self) -> list[str]:
        """The models that were trained."""
        return [name for name in self.models if name not in ("start", "teacher")]

    def _one(self, sql: str, values: Sequence[Any] = ()) -> Any:
        return self.db.execute(sql, values).fetchone()[0]

    def count(self, query: SampleQuery) -> int:
        """How many prompts a query finds."""
        where, values = self._where(query)
        return int(self._one(f"select count(*) from prompts p where {where}", values))

    def filter_counts(self, query: SampleQuery) -> dict[str, int]:
        """How many prompts each filter finds together with the rest of the query: in two passes, not one for each filter."""
        others = tuple(name for name in query.filters if name not in CELL_FILTERS)
        rest, values = self._where(replace(query, filters=others), cells=False)
        cells, more = self._cells(query)
        bits = [bit for bit, _, _ in CELL_FILTERS.values()]
        found = ", ".join(f"max((c.flags & {bit}) = {bit}) as f{bit}" for bit in bits)
        sums = ", ".join(f"coalesce(sum(f{bit}), 0)" for bit in bits)
        inner = f"select {found} from cells c join prompts p on p.n = c.prompt where {cells} and {rest} group by p.n"
        counts = dict(zip(CELL_FILTERS, self.db.execute(f"select {sums} from ({inner})", (*more, *values)).fetchone(), strict=True))
        where, values = self._where(query)
        sums = ", ".join(f"coalesce(sum((p.flags & {bit}) = {bit}), 0)" for bit, _, _ in PROMPT_FILTERS.values())
        counts |= zip(
            PROMPT_FILTERS, self.db.execute(f"select {sums} from prompts p where {where}", values).fetchone(), strict=True
        )
        for name in HUMAN_FILTERS:
            counts[name] = self.count(replace(query, filters=(*query.filters, name))) if self.votes.voted else 0
        return counts

    def cell_counts(self) -> list[tuple[str, str, int]]:
        """Model, filter and how many held-out prompts it finds, of every student."""
        sums = ", ".join(f"sum((c.flags & {bit}) = {bit})" for bit, _, _ in CELL_FILTERS.values())
        sql = f"select c.author, {sums} from cells c join prompts p on p.n = c.prompt where p.held_out group by c.author"
        of_author = {author: counts for author, *counts in self.db.execute(sql)}
        found = ((model, of_author.get(self.models[model], [0] * len(CELL_FILTERS))) for model in self.students)
        return [(model, name, count) for model, counts in found for name, count in zip(CELL_FILTERS, counts, strict=True)]

    def numbers(self, query: SampleQuery, limit: int | None = PAGE_ROWS, offset: int | None = None) -> list[int]:
        """The prompts of a page, in order; with `limit` None all of them."""
        where, values = self._where(query)
        order, more = self._order(query)
        skip = (query.page - 1) * PAGE_ROWS if offset is None else offset
        sql = f"select p.n from prompts p where {where} order by {order}p.n limit ? offset ?"
        found = self.db.execute(sql, (*values, *more, -1 if limit is None else limit, skip if limit is not None else 0))
        return [row[0] for row in found]

    def neighbours(self, query: SampleQuery, number: int) -> "Neighbours":
        """What is beside a prompt in a query's result."""
        numbers = self.numbers(query, None)
        if number not in numbers:
            return Neighbours(len(numbers))
        place = numbers.index(number)
        before = self.prompt_id(numbers[place - 1]) if place else None
        after = self.prompt_id(numbers[place + 1]) if place + 1 < len(numbers) else None
        return Neighbours(len(numbers), place + 1, before, after)

    def prompt_id(self, number: int) -> str:
        """The id of a prompt."""
        return str(self._one("select id from prompts where n = ?", (number,)))

    def number_of(self, identity: str) -> int | None:
        """A prompt's number; None for an unknown id."""
        row = self.db.execute("select n from prompts where id = ?", (identity,)).fetchone()
        return None if row is None else int(row[0])

    def sources(self) -> list[str]:
        """Where prompts came from, at most fifty."""
        return [row[0] for row in self.db.execute("select distinct source from prompts order by source limit 50")]

    def cells(self, numbers: Sequence[int]) -> dict[int, dict[str, dict[str, Any]]]:
        """The figures of prompts, by number and model."""
        names = {identity: name for name, identity in self.models.items()}
        found: dict[int, dict[str, dict[str, Any]]] = {number: {} for number in numbers}
        marks = ", ".join("?" * len(numbers))
        cursor = self.db.execute(f"select * from cells where prompt in ({marks})", numbers)
        columns = [column[0] for column in cursor.description]
        for row in cursor:
            cell = dict(zip(columns, row, strict=True))
            found[cell["prompt"]][names[cell["author"]]] = cell
        return found

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """The rows of a select that has `file`, `offset` and `size`, each with its record as `record`."""
        cursor = self.db.execute(sql, values)
        columns = [column[0] for column in cursor.description]
        found = [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]
        for row, record in zip(found, self.records([(one["file"], one["offset"], one["size"]) for one in found]), strict=True):
            row["record"] = record
        return found

    def records(self, places: Sequence[tuple[int, int, int]]) -> list[dict[str, Any]]:
        """The records at these places: file, offset, size."""
        read: list[dict[str, Any]] = [{} for _ in places]
        of_file: dict[int, list[int]] = {}
        for position, (file, _, _) in enumerate(places):
            of_file.setdefault(file, []).append(position)
        for file, positions in of_file.items():
            path = self._one("select path from files where id = ?", (file,))
            with Path(path).open("rb") as handle:
                for position in positions:
                    _, offset, size = places[position]
                    handle.seek(offset)
                    read[position] = json.loads(handle.read(size))
        return read

    def prompts(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """The prompts with these numbers, in this order."""
        marks = ", ".join("?" * len(numbers))
        found = {row["n"]: row for row in self.rows(f"select * from prompts where n in ({marks})", numbers)}
        return [found[number] for number in numbers]

    # ----------------------------------------------------------------------------------------------------------- SQL

    def _cells(self, query: SampleQuery) -> tuple[str, list[Any]]:
        """What holds of one of a prompt's cells `c`."""
        bits = sum(CELL_FILTERS[name][0] for name in query.filters if name in CELL_FILTERS)
        length = [(sign, value) for sign, value in ((">=", query.at_least), ("<=", query.at_most)) if value is not None]
        of_model, more = self._of_model(query.model)
        parts = [f"c.flags & {bits} = {bits}", of_model, *(f"c.length {sign} ?" for sign, _ in length)]
        return " and ".join(parts), [*more, *(value for _, value in length)]

    def _where(self, query: SampleQuery, cells: bool = True) -> tuple[str, list[Any]]:
        parts, values = ["1"], list[Any]()
        split = query.split or ("held_out" if self.models else "all")
        if split != "all":
            parts.append("p.held_out = ?")
            values.append(split == "held_out")
        if query.source:
            parts.append("p.source = ?")
            values.append(query.source)
        if cells and (CELL_FILTERS.keys() & set(query.filters) or query.at_least is not None or query.at_most is not None):
            clause, more = self._cells(query)
            parts.append(f"exists (select 1 from cells c where c.prompt = p.n and {clause})")
            values += more
        flags = sum(PROMPT_FILTERS[name][0] for name in query.filters if name in PROMPT_FILTERS)
        if flags:
            parts.append("p.flags & ? = ?")
            values += [flags, flags]
        for name, ids, negated in (("human", self.votes.disagreed, ""), ("unvoted", self.votes.voted, "not ")):
            if name in query.filters:
                parts.append(f"p.id {negated}in (select value from json_each(?))")
                values.append(json.dumps(sorted(ids)))
        if query.text:
            parts.append("p.n in (select value from json_each(?))")
            values.append(json.dumps(sorted(self._with_text(query.text))))
        return " and ".join(parts), values

    def _of_model(self, model: str) -> tuple[str, list[int]]:
        if model:
            return "c.author = ?", [self.models[model]]
        of_students = [self.models[name] for name in self.students]
        return f"c.author in ({', '.join('?' * len(of_students))})", of_students

    def _order(self, query: SampleQuery) -> tuple[str, list[Any]]:
        if not query.sort or not self.models:
            return "", []
        name, down = query.sort.removeprefix("-"), query.sort.startswith("-")
        measure = query.measure or next(iter(self.measures), "length")
        model = self.models[query.model or next(iter(self.students), next(iter(self.models)))]
        of = "(select {} from cells where prompt = p.n and author = ?)".format
        if name == "delta":
            expression, values = f"{of(measure)} - {of(measure)}", [model, self.models.get(query.base, -1)]
        elif name == "spread":
            clause, values = self._of_model("")
            expression = f"(select max(c.{measure}) - min(c.{measure}) from cells c where c.prompt = p.n and {clause})"
        else:
            expression, values = of(name), [model]
        return f"{expression} {'desc' if down else 'asc'} nulls last, ", values

    def _with_text(self, text: str) -> set[int]:
        """Numbers of the prompts that have a text in them, in an answer to them or in a candidate, or that have it as their id.

        The files are scanned once.
        """
        if text not in self._found:
            by_id = self.number_of(text)
            found = set() if by_id is None else {by_id}
            numbers = dict(self.db.execute("select id, n from prompts"))
            for table in ("prompts", "answers", "candidates"):
                for (path,) in self.db.execute(
                    f"select path from files where id in (select distinct file from {table})"
                ).fetchall():
                    for row in rows_with(Path(path), text):
                        number = numbers.get(row.get("prompt_id", row.get("id")))
                        if number is not None:
                            found.add(number)
            self._found[text] = found
        return self._found[text]


def rows_with(path: Path, text: str) -> Iterator[dict[str, Any]]:
    """The records of a file that have a text in `text` or `messages`, whatever the case of its letters."""
    needle = text.casefold()
    in_json = json.dumps(needle, ensure_ascii=False)[1:-1]
    in_bytes = in_json.encode() if in_json.isascii() else None
    with path.open("rb") as lines:
        for line in lines:
            if in_bytes not in line.lower() if in_bytes else in_json not in line.decode(errors="replace").casefold():
                continue
            row = json.loads(line)
            if any(
                needle in one.casefold() for one in (row.get("text", ""), *(turn["content"] for turn in row.get("messages", ())))
            ):
                yield row


@contextmanager
def opened(path: Path, votes: Votes = NO_VOTES) -> Iterator[Index]:
    """Open an index for reading, by one thread at a time."""
    # A download is a generator that the server advances in any of its threads, one after the other.
    database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False)
    try:
        yield Index(database, votes)
    finally:
        database.close()
