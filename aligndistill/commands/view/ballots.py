"""Which pairs a person votes on, and the file that keeps the votes."""

import getpass
import json
import os
import re
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aligndistill.commands.view.index import EVALUATION
from aligndistill.commands.view.query import Index
from aligndistill.commands.view.rows import prompt_verdicts
from aligndistill.commands.view.run_folder import RunFolder
from aligndistill.commands.view.sample_query import SampleQuery, Votes
from aligndistill.errors import ConfigError
from aligndistill.evaluation.votes import Choice, Hex, Pair, Queue, Vote, VotedAnswer, VoteMetrics, vote_metrics
from aligndistill.records import Record, content_hash
from aligndistill.runs.votes import VOTES, read_votes

BATCH = 20
REPEATS_PER_BATCH = 2
_FAMILIES = ("qwen", "llama", "gemma", "mistral", "phi", "gpt", "claude", "gemini", "deepseek", "openai", "anthropic", "chatgpt")


class Ballot(Record):
    """What the page sends: a decision on a pair that it was given."""

    id: str
    prompt: Hex
    left: Hex
    right: Hex
    vote: Choice
    queue: Queue
    milliseconds: int
    note: str = ""


@dataclass(frozen=True)
class Shown:
    """A pair on its way to the page: ids and which queue it is from."""

    prompt: str
    left: str
    right: str
    queue: Queue


def voter_name(given: str | None) -> str:
    """The voter's name, which becomes a file's name.

    Raises:
        ConfigError: a given name has other characters than letters, digits, `-` and `_`.
    """
    if given is not None:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,40}", given):
            raise ConfigError(f"--voter {given!r}: use 1 to 40 letters, digits, '-' and '_', for it names the file of the votes.")
        return given
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = ""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)[:40] or "voter"


def add_vote(run: Path, voter: str, vote: Vote) -> bool:
    """Append a vote; when this returns it is on the disk. False if it was there already."""
    path = run / VOTES / f"{voter}.jsonl"
    path.parent.mkdir(exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        content = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
        if f'"id":"{vote.id}"'.encode() in content:
            return False
        torn = b"\n" if content and not content.endswith(b"\n") else b""
        os.write(descriptor, torn + vote.model_dump_json().encode() + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return True


def as_vote(index: Index, ballot: Ballot, names: frozenset[str]) -> Vote | None:
    """The vote of a ballot; None if there are no such answers to such a prompt."""
    texts = answer_texts(index, ballot.prompt, (ballot.left, ballot.right))
    if texts is None or ballot.left == ballot.right:
        return None
    return Vote(**ballot.model_dump(), time=round(time.time(), 3), named=any(names_a_model(text, names) for text in texts))


def answer_texts(index: Index, prompt: str, keys: Sequence[str]) -> list[str] | None:
    """The texts of answers to a prompt; None if one is unknown."""
    number = index.number_of(prompt)
    if number is None:
        return None
    marks = ", ".join("?" * len(keys))
    rows = index.rows(f"select key, file, offset, size from answers where prompt = ? and key in ({marks})", (number, *keys))
    text_of = {row["key"]: str(row["record"]["text"]) for row in rows}
    return [text_of[key] for key in keys] if set(keys) <= text_of.keys() else None


def model_names(students: Collection[str], config: dict[str, Any]) -> frozenset[str]:
    """Words that give a model away: families, names in the config, and students whose name is not an ordinary word."""
    models = [config.get(role) or {} for role in ("start", "teacher")] + list((config.get("models") or {}).values())
    named = [str(one.get("model") or one.get("name") or "") for one in models if isinstance(one, dict)]
    words = {word for name in named for word in re.split(r"[^a-z0-9]+", name.lower()) if len(word) > 3 and not word.isdigit()}
    return frozenset({*_FAMILIES, *words, *(name.lower() for name in students if len(name) > 2)})


def names_a_model(text: str, names: frozenset[str]) -> bool:
    """Whether one of the names is a word of the text."""
    return not names.isdisjoint(re.findall(r"[^\W_]+|[\w-]+", text.lower()))


def next_batch(index: Index, voter: str, votes: Sequence[Vote], query: SampleQuery | None) -> list[Shown]:
    """The next pairs for a voter: half at random from the held-out prompts, half from a filter if one is chosen, and one in ten an
    earlier pair with the sides swapped. The order and the sides follow from the voter's name.
    """
    done = {vote.pair for vote in votes}
    fresh = BATCH - REPEATS_PER_BATCH
    chosen: dict[Pair, Queue] = {}
    if query is not None:
        for pair in _in_voters_order(index, voter, query, done)[: fresh // 2]:
            chosen[pair] = "filter"
    for pair in _in_voters_order(index, voter, SampleQuery(split="held_out"), done):
        if len(chosen) >= fresh:
            break
        chosen.setdefault(pair, "random")
    order = sorted(chosen, key=lambda pair: content_hash(voter, "order", *pair))
    batch = [_with_sides(voter, pair, chosen[pair]) for pair in order]
    repeated = {vote.pair for vote in votes if vote.queue == "repeat"}
    earlier = [
        Shown(vote.prompt, vote.right, vote.left, "repeat") for vote in votes if vote.queue == "random" and vote.vote != "skip"
    ]
    again = [one for one in earlier if (one.prompt, *sorted((one.left, one.right))) not in repeated]
    again += [Shown(one.prompt, one.right, one.left, "repeat") for one in batch[:REPEATS_PER_BATCH] if one.queue == "random"]
    for number, one in enumerate(again[:REPEATS_PER_BATCH], 1):
        batch.insert(number * BATCH // REPEATS_PER_BATCH - 1, one)
    return batch


def _in_voters_order(index: Index, voter: str, query: SampleQuery, done: Collection[Pair]) -> list[Pair]:
    if "start" not in index.models:
        return []
    numbers = index.numbers(query, None)
    start = index.models["start"]
    of_model = [index.models[query.model]] if query.model and query.model != "start" else [index.models[n] for n in index.students]
    marks = ", ".join("?" * len(of_model))
    rows = index.db.execute(
        "select p.id, a.key, s.key from answers a join answers s on s.prompt = a.prompt and s.sample = a.sample and s.author = ? "
        "join prompts p on p.n = a.prompt where a.prompt in (select value from json_each(?)) and a.key != s.key "
        f"and a.author in ({marks})",
        (start, json.dumps(numbers), *of_model),
    )
    pairs = {(prompt, *sorted(keys)) for prompt, *keys in rows}
    return sorted((pair for pair in pairs if pair not in done), key=lambda pair: content_hash(voter, *pair))  # type: ignore[misc]


def _with_sides(voter: str, pair: Pair, queue: Queue) -> Shown:
    prompt, one, other = pair
    swapped = int(content_hash(voter, "side", *pair)[0], 16) % 2
    return Shown(prompt, *((other, one) if swapped else (one, other)), queue)


def judged_pairs(index: Index, votes: Collection[Vote]) -> dict[Pair, float | None]:
    """P(the answer with the lower id is better) by the judge, of the pairs that were voted on."""
    found: dict[Pair, float | None] = {}
    for prompt, one, other in {vote.pair for vote in votes}:
        rows = index.db.execute(
            "select first, second, p from verdicts where scope = ? and prompt = (select n from prompts where id = ?)",
            (EVALUATION, prompt),
        )
        found[prompt, one, other] = prompt_verdicts(rows).win_probability(one, other)
    return found


def votes_for_filters(index: Index, by_voter: dict[str, list[Vote]]) -> Votes:
    """The prompts that people voted on, and those on which most votes and the judge prefer different answers."""
    votes = [vote for some in by_voter.values() for vote in some if vote.preferred is not None and vote.queue != "repeat"]
    judged = judged_pairs(index, votes)
    sums: Counter[Pair] = Counter()
    for vote in votes:
        sums[vote.pair] += int(2 * (vote.preferred or 0) - 1) if vote.preferred is not None else 0
    disagreed = set()
    for pair, total in sums.items():
        p = judged[pair]
        if p is not None and total * (p - 0.5) < 0:
            disagreed.add(pair[0])
    return Votes(frozenset(vote.prompt for vote in votes), frozenset(disagreed))


def human_metrics(run: RunFolder, index: Index) -> VoteMetrics | None:
    """What the votes on a run say; None without any."""
    by_voter = read_votes(run.path)
    every = [vote for votes in by_voter.values() for vote in votes]
    if not every:
        return None
    asked = {(vote.prompt, key) for vote in every for key in (vote.left, vote.right)}
    answers = {(prompt, key): found for prompt, key in asked if (found := _voted_answer(index, prompt, key)) is not None}
    return vote_metrics(by_voter, judged_pairs(index, every), answers)


def _voted_answer(index: Index, prompt: str, key: str) -> VotedAnswer | None:
    texts = answer_texts(index, prompt, (key,))
    if texts is None:
        return None
    names = {identity: name for name, identity in index.models.items()}
    authors = index.db.execute(
        "select distinct author from answers where prompt = (select n from prompts where id = ?) and key = ?", (prompt, key)
    )
    return VotedAnswer(len(texts[0]), [names[author] for (author,) in authors])
