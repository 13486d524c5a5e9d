"""The index of a run: ids, figures, and where in which file a record is; never texts. One SQLite file for each state of a run.

It is kept in the user's cache folder, so that read-only runs can be viewed, under a key of the fingerprints of the stages that it
describes. Records themselves are read by seek.
"""

import hashlib
import json
import os
import re
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from aligndistill.commands.view.flags import CANARY_WON, DISAGREE, cell_flags, prompt_flags
from aligndistill.commands.view.rows import Pair, prompt_verdicts, read_verdict, rows_of, storable
from aligndistill.commands.view.run_folder import RunFolder
from aligndistill.data.trl_pairs import joined_prompt
from aligndistill.records import content_hash
from aligndistill.stages.files import ANSWERS, CANARIES, CANDIDATES, PAIRS, PROMPTS, RANKINGS, REPEATS, SCORED, VERDICTS
from aligndistill.stages.scored_answers import answer_key
from aligndistill.store.run_folder import of_rounds

VERSION = 4
IDENTITY = re.compile(r"[0-9a-f]{16}")
"""A prompt's id. It becomes part of addresses, and of file names in an export."""
ROWS_AT_ONCE = 10_000
LABELLING, REPEATED, CANARY, EVALUATION, SECOND = range(5)
"""What a verdict was asked for."""

SCHEMA = """
create table files (id integer primary key, path text);
create table authors (id integer primary key, name text unique);
create table prompts (n integer primary key, id text unique, held_out int, source text, file int, offset int, size int, flags int);
create table answers (prompt int, author int, sample int, key text, truth real, reward real, win real, length int, kl real,
  truncated int, same int, file int, offset int, size int);
create table verdicts (prompt int, scope int, first text, second text, p real, unparsed int, author int,
  file int, offset int, size int);
create table candidates (prompt int, key text, author int, file int, offset int, size int);
create table rankings (prompt int, responses int, file int, offset int, size int);
create table pairs (prompt int, file int, offset int, size int);
create table cells (prompt int, author int, n int, truth real, reward real, win real, wins int, ties int, losses int,
  length real, kl real, flags int, primary key (prompt, author)) without rowid;
"""
AFTER = """
create index answers_of on answers (prompt, author, sample);
create index verdicts_of on verdicts (prompt);
create index candidates_of on candidates (prompt);
create index rankings_of on rankings (prompt);
create index pairs_of on pairs (prompt);
create index cells_of on cells (author, prompt);
"""


def index_of(run: RunFolder) -> Path:
    """The index of a run as it is now; built if it does not exist."""
    path = index_folder() / f"{index_key(run)}.sqlite"
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.{os.urandom(4).hex()}.partial")
    try:
        with closing(sqlite3.connect(partial)) as database:
            database.executescript("pragma journal_mode = off; pragma synchronous = off;" + SCHEMA)
            _Builder(database, run).build()
            database.executescript(AFTER)
            database.commit()
        partial.replace(path)
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()
    return path


def index_folder() -> Path:
    """`$XDG_CACHE_HOME/aligndistill/view`, or the same in `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return Path(base if os.path.isabs(base) else os.path.expanduser("~/.cache")) / "aligndistill" / "view"


def index_key(run: RunFolder) -> str:
    """A hash of what is indexed: the run's finished stages, whose names end in their fingerprints, and where they are."""
    folders = sorted((name, str(folder)) for name, folder in run.folders.items())
    return hashlib.sha256(json.dumps([VERSION, folders]).encode()).hexdigest()[:24]


class _Builder:
    """Fills the tables of an index."""

    def __init__(self, database: sqlite3.Connection, run: RunFolder) -> None:
        self._db = database
        self._folders = run.folders
        self._prompts: dict[str, int] = {}
        self._held_out: set[int] = set()
        self._authors: dict[str, int] = {}
        self._candidate_authors: dict[str, int] = {}

    def build(self) -> None:
        """Read every file once."""
        for stage, folder in self._folders.items():
            if stage == "prompts" or stage.startswith("prompts-"):  # those that models wrote, too
                self._read_prompts(folder)
        for folder in of_rounds(self._folders, "candidates").values():
            self._read_candidates(folder)
        flags: defaultdict[int, int] = defaultdict(int)
        second: defaultdict[int, dict[Pair, list[float | None]]] = defaultdict(dict)
        for folder in of_rounds(self._folders, "second_verdicts").values():
            for number, pairs in self._verdicts(folder / VERDICTS, SECOND, self._candidate_authors).items():
                second[number] |= pairs  # of a round
        for folder in of_rounds(self._folders, "verdicts").values():
            self._labelling(folder, second, flags)
        for folder in of_rounds(self._folders, "rankings").values():
            self._read_rankings(folder)
        if "evaluation" in self._folders:
            self._evaluation(self._folders["evaluation"], flags)
        self._db.executemany("update prompts set flags = ? where n = ?", [(flag, n) for n, flag in flags.items()])
        self._db.executemany("insert into authors values (?, ?)", [(number, name) for name, number in self._authors.items()])

    def _file(self, path: Path) -> int:
        return int(self._db.execute("insert into files (path) values (?)", (str(path),)).lastrowid or 0)

    def _author(self, name: str) -> int:
        return self._authors.setdefault(storable(name), len(self._authors))

    def _read_prompts(self, folder: Path) -> None:
        file = self._file(folder / PROMPTS)
        rows = []
        for offset, size, row in rows_of(folder / PROMPTS):
            if row["id"] in self._prompts or not IDENTITY.fullmatch(row["id"]):
                continue
            number = self._prompts[row["id"]] = len(self._prompts)
            held_out = row["split"] == "held_out"
            if held_out:
                self._held_out.add(number)
            rows.append((number, row["id"], held_out, storable(row["source"].rpartition(" row ")[0]), file, offset, size, 0))
        self._db.executemany("insert into prompts values (?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def _read_candidates(self, folder: Path) -> None:
        file, rows = self._file(folder / CANDIDATES), []
        for offset, size, row in rows_of(folder / CANDIDATES):
            if (prompt := self._prompts.get(row["prompt_id"])) is not None:
                author = self._candidate_authors[row["id"]] = self._author(row["author"])
                rows.append((prompt, row["id"], author, file, offset, size))
        self._db.executemany("insert into candidates values (?, ?, ?, ?, ?, ?)", rows)

    def _read_rankings(self, folder: Path) -> None:
        file, rows = self._file(folder / RANKINGS), []
        joined: dict[str, int] = {}  # prompts as in pairs of models without a chat template
        for offset, size, row in rows_of(folder / RANKINGS):
            if (prompt := self._prompts.get(row["prompt_id"])) is not None:
                rows.append((prompt, len(row["responses"]), file, offset, size))
                joined[content_hash(joined_prompt(message["content"] for message in row["messages"]))] = prompt
        self._db.executemany("insert into rankings values (?, ?, ?, ?, ?)", rows)
        file, pairs = self._file(folder / PAIRS), []
        for offset, size, row in rows_of(folder / PAIRS):
            if isinstance(row["prompt"], str):
                prompt = joined.get(content_hash(row["prompt"]))
            else:
                turns = (text for message in row["prompt"] for text in (message["role"], message["content"]))
                prompt = self._prompts.get(content_hash(*turns))
            if prompt is not None:
                pairs.append((prompt, file, offset, size))
        self._db.executemany("insert into pairs values (?, ?, ?, ?)", pairs)

    def _labelling(
        self, folder: Path, second: Mapping[int, Mapping[Pair, list[float | None]]], flags: defaultdict[int, int]
    ) -> None:
        asked = self._verdicts(folder / VERDICTS, LABELLING, self._candidate_authors)
        self._verdicts(folder / REPEATS, REPEATED, self._candidate_authors)
        for number, pairs in asked.items():
            flags[number] |= prompt_flags(pairs, second.get(number, {}))
        file, rows = self._file(folder / CANARIES), []
        for offset, size, row in rows_of(folder / CANARIES):
            prompt = self._prompts.get(row["prompt_id"])
            if prompt is None:
                continue
            won = _canary_probability(row)
            if won is not None and won > 0.5:
                flags[prompt] |= CANARY_WON
            key = (row["bad"]["id"], row["reference"]["id"])
            rows.append((prompt, CANARY, *key, won, won is None, None, file, offset, size))
        self._db.executemany("insert into verdicts values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def _verdicts(self, path: Path, scope: int, authors: Mapping[str, int]) -> dict[int, dict[Pair, list[float | None]]]:
        """Index a file of verdicts; returns each prompt's comparisons, `(id, "")` for grades."""
        if not path.is_file():
            return {}
        file, rows = self._file(path), []
        found: defaultdict[int, dict[Pair, list[float | None]]] = defaultdict(dict)
        for offset, size, row in rows_of(path):
            prompt = self._prompts.get(row["prompt_id"])
            if prompt is None:
                continue
            first, second, p = read_verdict(row)
            found[prompt].setdefault((first, second), []).append(p)
            rows.append((prompt, scope, first, second, p, p is None, authors.get(first), file, offset, size))
            if len(rows) >= ROWS_AT_ONCE:
                self._db.executemany("insert into verdicts values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
                rows.clear()
        self._db.executemany("insert into verdicts values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        return found

    def _evaluation(self, folder: Path, flags: defaultdict[int, int]) -> None:
        asked = self._verdicts(folder / VERDICTS, EVALUATION, {})
        written = {name.removeprefix("answers-"): path for name, path in self._folders.items() if name.startswith("answers-")}
        answers: defaultdict[int, dict[int, list[tuple[Any, ...]]]] = defaultdict(dict)
        file = self._file(folder / SCORED)
        authors: dict[str, tuple[int, Iterator[tuple[float | None, bool]]]] = {}
        for offset, size, row in rows_of(folder / SCORED):
            prompt = self._prompts.get(row["prompt_id"])
            if prompt is None:
                continue
            name = row["author"]
            if name not in authors:
                authors[name] = self._author(name), _kl_and_finish(written.get(name))
            author, of_author = authors[name]
            of_prompt = answers[prompt].setdefault(author, [])
            key = answer_key(row["prompt_id"], row["text"])
            figures = (row["truth"], row["reward"], row["win"], row["length_tokens"], *next(of_author, (None, False)))
            of_prompt.append((len(of_prompt), key, *figures, file, offset, size))
        start, teacher = self._authors.get("start"), self._authors.get("teacher")
        rows: list[tuple[Any, ...]] = []
        cells: list[tuple[Any, ...]] = []
        for prompt, of_models in answers.items():
            new = _cells(prompt, of_models, start, asked.get(prompt, {}), rows)
            cells += new
            outcomes = {cell[5] > 0.5 for cell in new if cell[5] not in (None, 0.5) and cell[1] not in (start, teacher)}
            if len(outcomes) > 1:
                flags[prompt] |= DISAGREE
            if len(rows) >= ROWS_AT_ONCE:
                self._write(rows, cells)
        self._write(rows, cells)

    def _write(self, rows: list[tuple[Any, ...]], cells: list[tuple[Any, ...]]) -> None:
        self._db.executemany(f"insert into answers values ({', '.join('?' * 14)})", rows)
        self._db.executemany(f"insert into cells values ({', '.join('?' * 12)})", cells)
        rows.clear()
        cells.clear()


def _cells(
    prompt: int,
    authors: Mapping[int, list[tuple[Any, ...]]],
    start: int | None,
    asked: Mapping[Pair, list[float | None]],
    rows: list[tuple[Any, ...]],
) -> list[tuple[Any, ...]]:
    """A row for each model of a prompt; its answers are added to `rows`."""
    starts = authors.get(start, []) if start is not None else []
    start_means = _means(starts)
    cells = []
    for author, answers in authors.items():
        others = [] if answers is starts else starts
        means = start_means if answers is starts else _means(answers)
        wins = ties = losses = 0
        for place, one in enumerate(answers):
            same = place < len(others) and one[1] == others[place][1]
            rows.append((prompt, author, *one[:8], same, *one[8:]))
            if (win := one[4]) is not None:
                wins, ties, losses = wins + (win > 0.5), ties + (win == 0.5), losses + (win < 0.5)
        found = cell_flags(answers, means, others, start_means, asked)
        cells.append((prompt, author, len(answers), *means[:3], wins, ties, losses, *means[3:], found))
    return cells


def _means(answers: Sequence[tuple[Any, ...]]) -> list[float | None]:
    """Means of truth, reward, win, length and KL over a prompt's answers; None where none is known."""
    if len(answers) == 1:
        return list(answers[0][2:7])
    return [_mean([one[place] for one in answers]) for place in range(2, 7)]


def _kl_and_finish(folder: Path | None) -> Iterator[tuple[float | None, bool]]:
    """KL and whether it was truncated, of each of an author's answers in order."""
    if folder is not None:
        for _, _, row in rows_of(folder / ANSWERS):
            yield row.get("kl_nats"), row.get("finish") == "length"


def _canary_probability(row: Mapping[str, Any]) -> float | None:
    """P(the judge prefers the known-bad answer)."""
    verdicts = prompt_verdicts(read_verdict(verdict) for verdict in row["verdicts"])
    return verdicts.win_probability(row["bad"]["id"], row["reference"]["id"])


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
