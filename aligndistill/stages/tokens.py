"""Training rows as token ids, kept by content beside the other caches."""

from collections.abc import Iterable
from typing import Any

from aligndistill.models.conversation import Conversation
from aligndistill.models.tokenise import Limits
from aligndistill.processes.monitor import wait_for_others
from aligndistill.processes.ranks import local_ranks, rank
from aligndistill.records import Ranking
from aligndistill.stages.context import Work
from aligndistill.store.cache import cache_key
from aligndistill.store.jsonl import read_jsonl
from aligndistill.training.offline.examples import exchange_of
from aligndistill.training.offline.token_dataset import (
    ScoredExchange,
    StoredExamples,
    conversation_fingerprint,
    read_examples,
    write_examples,
)


def ranking_examples(work: Work, conversation: Conversation, limits: Limits, best_only: bool = False) -> StoredExamples:
    """The training rankings of a stage's input; with `best_only`, of each the best response alone."""
    rankings = read_jsonl(work.inputs["rankings"] / "rankings.jsonl", Ranking)
    exchanges = (_scored(one, best_only) for one in rankings if one.split == "train")
    return stored_examples(work, conversation, limits, exchanges, rankings=work.identities["rankings"], best_only=best_only)


def stored_examples(
    work: Work, conversation: Conversation, limits: Limits, exchanges: Iterable[ScoredExchange], **source: Any
) -> StoredExamples:
    """Tokenise exchanges, once on every machine; they are not looked at where that was done before.

    Args:
        source: says what the exchanges are, as a cache's key does.
    """
    key = cache_key(conversation=conversation_fingerprint(conversation), limits=vars(limits), **source)
    path = work.caches / "tokens" / key
    if rank() == local_ranks().start and read_examples(path) is None:
        write_examples(path, work.scratch / f"tokens-{rank()}", conversation, limits, exchanges)
    wait_for_others(f"{work.folder.name} has its tokens", local_ranks())
    found = read_examples(path)
    assert found is not None
    return found


def _scored(ranking: Ranking, best_only: bool) -> ScoredExchange:
    if best_only:
        ranking = ranking.model_copy(update={"responses": ranking.responses[:1]})
    return ScoredExchange(exchange_of(ranking), [one.score for one in ranking.responses])
