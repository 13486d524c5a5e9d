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
) -> StoredExamples:
    """The training rankings in a stage's folder.

    Args:
        best_only: keep only the best response of each; where all rankings are tied, the first response of each.
        ties: also read rankings whose responses are all tied, which are useful for soft labels only.

    Raises:
        DataError: there are none.
    """
    exchanges = (_scored(one, best_only) for one in _training(rankings, best_only, ties))
    source = {"rankings": context.identities[rankings], "best_only": best_only, "ties": ties}
    examples = stored_examples(context, conversation, limits, exchanges, **source)
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
