"""Rankings as rows for other tools: distilabel's columns (which Argilla reads), and the `rankings` form that is read here."""

from collections.abc import Sequence
from typing import Any

from aligndistill.records import Comparison, Grade, Ranking, Verdict, plain_prompt


def distilabel_row(ranking: Ranking, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """A ranking with the judge's raw replies, as distilabel's UltraFeedback step writes them.

    `ratings` are the scores (logit scale), best first; `rationales` the replies on single answers; all raw replies are in
    `distilabel_metadata`, those on pairs with the two answers' places in `generations`.
    """
    place = {response.candidate_id: number for number, response in enumerate(ranking.responses)}
    replies: dict[str, list[str]] = {identity: [] for identity in place}
    pairs = []
    for verdict in verdicts:
        if isinstance(verdict, Grade) and verdict.candidate in place and verdict.reply is not None:
            replies[verdict.candidate].append(verdict.reply)
        elif isinstance(verdict, Comparison) and verdict.first in place and verdict.second in place:
            shown = [place[verdict.first], place[verdict.second]]
            pairs.append({"shown": shown, "outcome": verdict.outcome, "raw_output": verdict.reply})
    judges = sorted({verdict.judge for verdict in verdicts})
    return {
        "instruction": plain_prompt(ranking.messages),
        "generations": [response.text for response in ranking.responses],
        "generation_models": [response.author for response in ranking.responses],
        "ratings": [response.score for response in ranking.responses],
        "rationales": ["\n\n".join(replies[identity]) or None for identity in place],
        "model_name": ", ".join(judges) or None,
        "split": ranking.split,
        "distilabel_metadata": {
            "raw_output_ultra_feedback_0": ["\n\n".join(replies[identity]) or None for identity in place],
            "raw_output_pairs": pairs,
        },
    }


def rankings_row(ranking: Ranking) -> dict[str, Any]:
    """A ranking as `format: rankings` reads it; whoever labels by hand writes other `scores`."""
    return {
        "prompt": [message.model_dump() for message in ranking.messages],
        "responses": [response.text for response in ranking.responses],
        "scores": [response.score for response in ranking.responses],
        "authors": [response.author for response in ranking.responses],
        "split": ranking.split,
    }
