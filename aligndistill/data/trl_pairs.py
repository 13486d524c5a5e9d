"""Converts rankings to pairs in TRL's explicit-prompt preference format, which DPOTrainer and RewardTrainer load unchanged.

Besides `prompt`, `chosen` and `rejected` a row has `score_chosen` and `score_rejected` (logit scale), which both trainers
ignore. It has no `margin`, because TRL's RewardTrainer would use that in its loss.
"""

from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import Any, Literal

from aligndistill.records import Ranking, Response, as_dicts


def pairs_of(ranking: Ranking, which: Literal["all", "best_worst"] = "all", *, conversational: bool) -> Iterator[dict[str, Any]]:
    """The pairs of one ranking whose scores differ, as rows of `pairs.jsonl`.

    Args:
        ranking: the ranking, best first.
        which: every strictly ordered pair, or only the best response against the worst.
        conversational: message lists, for models with a chat template; else plain strings, where the response continues the
            prompt as with `layout: plain`.
    """
    responses = ranking.responses
    pairs = combinations(responses, 2) if which == "all" else [(responses[0], responses[-1])]
    for chosen, rejected in pairs:
        if chosen.score > rejected.score:
            yield _row(ranking, chosen, rejected, conversational)


def joined_prompt(contents: Iterable[str]) -> str:
    """The contents of a prompt's messages as one plain string."""
    return "\n\n".join(contents)


def _row(ranking: Ranking, chosen: Response, rejected: Response, conversational: bool) -> dict[str, Any]:
    prompt: str | list[dict[str, str]]
    prompt = as_dicts(ranking.messages) if conversational else joined_prompt(message.content for message in ranking.messages)
    return {
        "prompt": prompt,
        "chosen": _answer(chosen.text, conversational),
        "rejected": _answer(rejected.text, conversational),
        "score_chosen": chosen.score,
        "score_rejected": rejected.score,
    }


def _answer(text: str, conversational: bool) -> str | list[dict[str, str]]:
    return [{"role": "assistant", "content": text}] if conversational else text
