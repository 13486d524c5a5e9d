"""Tokenised training examples, cached by content."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from aligndistill.models.conversation import Conversation
from aligndistill.models.tokenise import Limits
from aligndistill.processes.monitor import wait_for_others
from aligndistill.processes.ranks import local_ranks, process_rank
from aligndistill.records import Ranking
from aligndistill.stages.context import StageContext, require_records
from aligndistill.stages.files import RANKINGS, TIES
from aligndistill.store.cache import cache_key
from aligndistill.store.jsonl import read_jsonl
from aligndistill.training.offline.examples import exchange_of
from aligndistill.training.offline.token_dataset import (
    ScoredResponses,
    StoredExamples,
    conversation_fingerprint,
    read_examples,
    write_examples,
)


def ranking_examples(
    context: StageContext,
    rankings: Path,
    conversation: Conversation,
    limits: Limits,
    best_only: bool = False,
    ties: bool = False,
    author: str | None = None,
) -> StoredExamples:
    """The training rankings in a stage's folder.

    Args:
        best_only: keep only the best response of each; where all rankings are tied, the first response of each.
        ties: also read rankings whose responses are all tied, which are useful where no order is learned, or a soft one.
        author: keep only this author's responses, and no ranking without one.

    Raises:
        DataError: there are none.
    """
    chosen = _training(rankings, best_only, ties)
    exchanges = (_scored(one, best_only) for one in (chosen if author is None else _by_author(chosen, author)))
    source = {"rankings": context.identities[rankings], "best_only": best_only, "ties": ties}
    source |= {} if author is None else {"author": author}
    examples = stored_examples(context, conversation, limits, exchanges, **source)
    if not len(examples) and author is not None:
        dropped = {f"without an answer of '{author}'": rankings_without(rankings, author), **examples.dropped}
        advice = f"Answers count whose author in the rankings is '{author}': add it to candidates.from, or set `on` to best or all."
        require_records(0, f"training rankings with an answer of '{author}'", dropped, advice)
    if not len(examples):
        tied = 0 if ties or best_only else sum(1 for _ in read_jsonl(rankings / TIES, Ranking))
        require_records(0, "training rankings", {"all tied": tied, **examples.dropped})
    return examples


def _training(rankings: Path, best_only: bool, ties: bool) -> Iterator[Ranking]:
    strict = False
    for one in read_jsonl(rankings / RANKINGS, Ranking):
        if one.split == "train":
            strict = True
            yield one
    if ties or (best_only and not strict):
        yield from read_jsonl(rankings / TIES, Ranking)


def rankings_without(rankings: Path, author: str) -> int:
    """The number of training rankings, tied ones among them, in which this author has no response."""
    every = sum(1 for _ in _training(rankings, False, True))
    return every - sum(1 for _ in _by_author(_training(rankings, False, True), author))


def _by_author(rankings: Iterable[Ranking], author: str) -> Iterator[Ranking]:
    for one in rankings:
        if responses := tuple(response for response in one.responses if response.author == author):
            yield one.model_copy(update={"responses": responses})


def stored_examples(
    context: StageContext, conversation: Conversation, limits: Limits, exchanges: Iterable[ScoredResponses], **source: Any
) -> StoredExamples:
    """Tokenise exchanges, once on every machine; they are not read if they are cached.

    Args:
        source: identifies the exchanges in the cache key.
    """
    key = cache_key(conversation=conversation_fingerprint(conversation), limits=vars(limits), **source)
    path = context.caches / "tokens" / key
    if process_rank() == local_ranks().start and read_examples(path) is None:
        write_examples(path, context.scratch / f"tokens-{process_rank()}", conversation, limits, exchanges)
    wait_for_others(f"{context.folder.name} has its tokens", local_ranks())
    found = read_examples(path)
    assert found is not None
    return found


def _scored(ranking: Ranking, best_only: bool) -> ScoredResponses:
    if best_only:
        ranking = ranking.model_copy(update={"responses": ranking.responses[:1]})
    return ScoredResponses(exchange_of(ranking), [one.score for one in ranking.responses])
