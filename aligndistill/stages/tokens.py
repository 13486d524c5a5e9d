"""Training rows as token ids, kept by content beside the other caches."""

from collections.abc import Iterable
from itertools import chain
from typing import Any

from aligndistill.models.conversation import Conversation
from aligndistill.models.tokenise import Limits
from aligndistill.records import Ranking
from aligndistill.stages.stage import Work, wait_for_others
from aligndistill.store.cache import cache_key
from aligndistill.store.jsonl import read_jsonl
from aligndistill.training.distributed import local_ranks, rank
from aligndistill.training.examples import exchange_of
from aligndistill.training.token_files import (
    ScoredExchange,
    StoredExamples,
    conversation_fingerprint,
    read_examples,
    write_examples,
)

TIES = "ties.jsonl"
"""Beside the rankings: the training rankings whose answers are all tied."""


def ranking_examples(
    work: Work, conversation: Conversation, limits: Limits, best_only: bool = False, ties: bool = False
) -> StoredExamples:
    """The training rankings of a stage's input.

    Args:
        best_only: of each the best response alone.
        ties: those that are all tied as well, which say something to soft labels only.
    """
    folder = work.inputs["rankings"]
    rankings = read_jsonl(folder / "rankings.jsonl", Ranking)
    source = {"rankings": work.identities["rankings"], "best_only": best_only}
    if ties and (folder / TIES).is_file():  # rankings of an earlier version have none
        rankings = chain(rankings, read_jsonl(folder / TIES, Ranking))
        source["ties"] = True
    exchanges = (_scored(one, best_only) for one in rankings if one.split == "train")
    return stored_examples(work, conversation, limits, exchanges, **source)


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
