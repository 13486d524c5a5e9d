"""Pairs, verdicts and votes as rows for other tools."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aligndistill.data.trl_pairs import pairs_of
from aligndistill.records import Candidate, Comparison, Message, Ranking, Verdict, as_dicts


def openrlhf_rows(ranking: Ranking) -> Iterator[dict[str, Any]]:
    """Every strictly ordered pair as OpenRLHF reads it without a `prompt_key`: `chosen` and `rejected` are whole conversations."""
    for row in pairs_of(ranking, conversational=True):
        yield {"chosen": [*row["prompt"], *row["chosen"]], "rejected": [*row["prompt"], *row["rejected"]]}


def verdict_row(verdict: Verdict, turns: Sequence[Message], split: str, candidates: Mapping[str, Candidate]) -> dict[str, Any]:
    """A verdict with its texts. Of a comparison `second` and `outcome` are set, of a grade `value`; the rest is null."""
    row: dict[str, Any] = {
        "prompt_id": verdict.prompt_id,
        "prompt": as_dicts(turns),
        "split": split,
        "kind": verdict.kind,
        "judge": verdict.judge,
    }
    first = candidates[verdict.first if isinstance(verdict, Comparison) else verdict.candidate]
    second = candidates[verdict.second] if isinstance(verdict, Comparison) else None
    row |= {"first": first.text, "first_model": first.author}
    row |= {"second": second.text if second else None, "second_model": second.author if second else None}
    compared = (verdict.outcome, verdict.probability_first) if isinstance(verdict, Comparison) else (None, None)
    row |= {"outcome": compared[0], "probability_first": compared[1]}
    return row | {"value": None if isinstance(verdict, Comparison) else verdict.value, "reply": verdict.reply}
