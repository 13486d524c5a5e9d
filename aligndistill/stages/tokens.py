"""Training rows as token ids, kept by content beside the other caches."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from aligndistill.models.conversation import Conversation
from aligndistill.models.tokenise import Limits
from aligndistill.processes.monitor import wait_for_others
from aligndistill.processes.ranks import local_ranks, process_rank
from aligndistill.records import Ranking
from aligndistill.stages.context import StageContext
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
        best_only: of each the best response alone.
        ties: those that are all tied as well, which say something to soft labels only.
    """
    files = (RANKINGS, TIES) if ties else (RANKINGS,)
    train = (one for file in files for one in read_jsonl(rankings / file, Ranking) if one.split == "train")
    exchanges = (_scored(one, best_only) for one in train)
    source = {"rankings": context.identities[rankings], "best_only": best_only, "ties": ties}
    return stored_examples(context, conversation, limits, exchanges, **source)


def stored_examples(
    context: StageContext, conversation: Conversation, limits: Limits, exchanges: Iterable[ScoredResponses], **source: Any
) -> StoredExamples:
    """Tokenise exchanges, once on every machine; they are not looked at where that was done before.

    Args:
        source: says what the exchanges are, as a cache's key does.
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
