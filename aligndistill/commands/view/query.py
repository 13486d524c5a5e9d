"""Which samples are shown: the query of a URL, as SQL over the index. A view of the samples is a link, and an export."""

import json
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from aligndistill.commands.view.flags import CELL_FILTERS, PROMPT_FILTERS

PAGE_ROWS = 50
MEASURES = ("truth", "reward", "win", "length", "kl")
SORTS = {
    "truth": "truth",
    "reward": "reward",
    "win": "win rate",
    "length": "length",
    "kl": "KL",
    "delta": "difference",
    "spread": "spread of students",
}
HUMAN_FILTERS = {
    "human": "judge and human disagree",
    "unvoted": "unvoted",
}
SPLITS = ("held_out", "train", "all")


@dataclass(frozen=True)
class SampleQuery:
    """What a URL asks for.

    Attributes:
        filters: names of filters, all of which hold.
        model: the model that they are about; empty for any student.
        base: the model that `delta` compares with.
        measure: what `delta` and `spread` are of.
        sort: one of `SORTS`, with a minus sign for the highest first; empty for the order of the data.
        at_least, at_most: length of the answers of `model`, tokens.
        hidden: models whose columns are not shown.
    """

    filters: tuple[str, ...] = ()
    model: str = ""
    base: str = "start"
    measure: str = ""
    split: str = ""
    source: str = ""
    text: str = ""
    sort: str = ""
    at_least: int | None = None
    at_most: int | None = None
    page: int = 1
    hidden: tuple[str, ...] = ()

    @staticmethod
    def read(values: Mapping[str, str], models: Collection[str]) -> "SampleQuery":
        """The query of a URL; what has no meaning is left out."""
        known = {*CELL_FILTERS, *PROMPT_FILTERS, *HUMAN_FILTERS}
        values = {name: value.encode("utf-8", "replace").decode() for name, value in values.items()}
        sort = values.get("sort", "")
        return SampleQuery(
            filters=tuple(name for name in dict.fromkeys(values.get("f", "").split(",")) if name in known),
            model=values["m"] if values.get("m") in models else "",
            base=values["b"] if values.get("b") in models else "start",
            measure=values["by"] if values.get("by") in MEASURES else "",
            split=values["split"] if values.get("split") in SPLITS else "",
            source=values.get("source", "")[:500],
            text=values.get("q", "")[:200],
            sort=sort if sort.removeprefix("-") in SORTS else "",
            at_least=_number(values.get("min")),
            at_most=_number(values.get("max")),
            page=min(max(_number(values.get("page")) or 1, 1), 1_000_000),
            hidden=tuple(name for name in dict.fromkeys(values.get("hide", "").split(",")) if name in models),
        )

    def url(self, **changes: Any) -> str:
        """The query string, with changes; a new filter or order begins at the first page."""
        new = replace(self, **({"page": 1} | changes))
        values = {
            "f": ",".join(new.filters),
            "m": new.model,
            "b": "" if new.base == "start" else new.base,
            "by": new.measure,
            "split": new.split,
            "source": new.source,
            "q": new.text,
            "sort": new.sort,
            "min": new.at_least,
            "max": new.at_most,
            "page": "" if new.page == 1 else new.page,
            "hide": ",".join(new.hidden),
        }
        return urlencode({name: value for name, value in values.items() if value not in ("", None)})

    def toggled(self, name: str) -> str:
        """The query string with a filter switched."""
        rest = tuple(one for one in self.filters if one != name)
        return self.url(filters=rest if name in self.filters else (*rest, name))


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < 10 else None


@dataclass(frozen=True)
class Votes:
    """What people decided, for filters: ids of prompts that they voted on, and of those where the judge disagrees."""

    voted: frozenset[str] = frozenset()
    disagreed: frozenset[str] = frozenset()


class Index:
    """An open index; every method is a question to it."""

    def __init__(self, database: sqlite3.Connection, votes: Votes = Votes()) -> None:
        self.db = database
        self.votes = votes
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

    def numbers(self, query: SampleQuery, limit: int | None = PAGE_ROWS, offset: int | None = None) -> list[int]:
        """The prompts of a page, in order; with `limit` None all of them."""
        where, values = self._where(query)
        order, more = self._order(query)
        skip = (query.page - 1) * PAGE_ROWS if offset is None else offset
        sql = f"select p.n from prompts p where {where} order by {order}p.n limit ? offset ?"
        found = self.db.execute(sql, (*values, *more, -1 if limit is None else limit, skip if limit is not None else 0))
        return [row[0] for row in found]

    def neighbours(self, query: SampleQuery, number: int) -> tuple[int | None, str | None, str | None, int]:
        """The place of a prompt in a query's result, the ids of the prompts before and after it, and how many there are."""
        numbers = self.numbers(query, None)
        if number not in numbers:
            return None, None, None, len(numbers)
        place = numbers.index(number)
        before = self.prompt_id(numbers[place - 1]) if place else None
        after = self.prompt_id(numbers[place + 1]) if place + 1 < len(numbers) else None
        return place + 1, before, after, len(numbers)

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

    def _where(self, query: SampleQuery) -> tuple[str, list[Any]]:
        parts, values = ["1"], list[Any]()
        split = query.split or ("held_out" if self.models else "all")
        if split != "all":
            parts.append("p.held_out = ?")
            values.append(split == "held_out")
        if query.source:
            parts.append("p.source = ?")
            values.append(query.source)
        bits = sum(CELL_FILTERS[name][0] for name in query.filters if name in CELL_FILTERS)
        length = [(sign, value) for sign, value in ((">=", query.at_least), ("<=", query.at_most)) if value is not None]
        if bits or length:
            of_model, more = self._of_model(query.model)
            lengths = "".join(f" and c.length {sign} ?" for sign, _ in length)
            parts.append(f"exists (select 1 from cells c where c.prompt = p.n and c.flags & ? = ? and {of_model}{lengths})")
            values += [bits, bits, *more, *(value for _, value in length)]
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
        """Numbers of the prompts that have a text in them, in an answer to them or in a candidate; the files are scanned."""
        needle = text.casefold()
        in_json = json.dumps(text, ensure_ascii=False)[1:-1].casefold()
        found: set[int] = set()
        numbers = dict(self.db.execute("select id, n from prompts"))
        for table in ("prompts", "answers", "candidates"):
            for (path,) in self.db.execute(f"select path from files where id in (select distinct file from {table})").fetchall():
                with Path(path).open(encoding="utf-8", errors="replace") as lines:
                    for line in lines:
                        if in_json in line.casefold():
                            row = json.loads(line)
                            texts = [row.get("text", ""), *(message["content"] for message in row.get("messages", ()))]
                            number = numbers.get(row.get("prompt_id", row.get("id")))
                            if number is not None and any(needle in one.casefold() for one in texts):
                                found.add(number)
        return found


@contextmanager
def opened(path: Path, votes: Votes = Votes()) -> Iterator[Index]:
    """Open an index for reading."""
    database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
    try:
        yield Index(database, votes)
    finally:
        database.close()
