"""Rankings as rows for other tools: distilabel (also read by Argilla), UltraFeedback, RewardBench pairs, this package's own."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

from aligndistill.records import Comparison, Grade, Message, Ranking, Response, Verdict, plain_prompt


def distilabel_row(ranking: Ranking, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """A ranking with the judge's raw replies, as distilabel's UltraFeedback step writes them.

    `ratings` are the scores (logit scale), best first; `rationales` the replies on single answers. `distilabel_metadata` has all
    raw replies; for pairs with the indices of the two answers in `generations`.
    """
    place = {response.candidate_id: number for number, response in enumerate(ranking.responses)}
    replies = [_replies_on(response, verdicts) or None for response in ranking.responses]
    pairs = [
        {"shown": [place[one.first], place[one.second]], "outcome": one.outcome, "raw_output": one.reply}
        for one in verdicts
        if isinstance(one, Comparison) and one.first in place and one.second in place
    ]
    judges = sorted({verdict.judge for verdict in verdicts})
    return {
        "instruction": plain_prompt(ranking.messages),
        "generations": [response.text for response in ranking.responses],
        "generation_models": [response.author for response in ranking.responses],
        "ratings": [response.score for response in ranking.responses],
        "rationales": replies,
        "model_name": ", ".join(judges) or None,
        "split": ranking.split,
        "distilabel_metadata": {
            "raw_output_ultra_feedback_0": replies,
            "raw_output_pairs": pairs,
        },
    }


def ultrafeedback_row(ranking: Ranking, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """A ranking as a row of openbmb/UltraFeedback: `completions`, best first, each with its score (logit scale).

    There is one rating, `overall`, instead of that data set's four; its rationale and `critique` are the replies on that answer.
    """
    completions = []
    for response in ranking.responses:
        critique = _replies_on(response, verdicts)
        completions.append(
            {
                "model": response.author,
                "response": response.text,
                "annotations": {"overall": {"Rating": str(response.score), "Rationale": critique}},
                "overall_score": response.score,
                "fine-grained_score": response.score,
                "critique": critique,
            }
        )
    return {
        "source": "aligndistill",
        "instruction": plain_prompt(ranking.messages),
        "models": [response.author for response in ranking.responses],
        "completions": completions,
        "correct_answers": ["None"],
        "incorrect_answers": ["None"],
        "split": ranking.split,
    }


def rewardbench_rows(ranking: Ranking) -> Iterator[dict[str, Any]]:
    """Every strictly ordered pair as a row of RewardBench (version 1), with its scores; the subset is the split."""
    for number, (chosen, rejected) in enumerate(combinations(ranking.responses, 2)):
        if chosen.score > rejected.score:
            yield {
                "prompt": _text_or_turns(ranking.messages),
                "chosen": chosen.text,
                "chosen_model": chosen.author,
                "rejected": rejected.text,
                "rejected_model": rejected.author,
                "score_chosen": chosen.score,
                "score_rejected": rejected.score,
                "subset": ranking.split,
                "id": f"{ranking.prompt_id}-{number}",
            }


def _replies_on(response: Response, verdicts: Sequence[Verdict]) -> str:
    """The judge's replies on this answer, from its grades."""
    grades = (one for one in verdicts if isinstance(one, Grade) and one.candidate == response.candidate_id)
    return "\n\n".join(one.reply for one in grades if one.reply is not None)


def _text_or_turns(messages: Sequence[Message]) -> str | list[dict[str, str]]:
    return messages[0].content if len(messages) == 1 else [one.model_dump() for one in messages]


def rankings_row(ranking: Ranking) -> dict[str, Any]:
    """A ranking as `format: rankings` reads it; edit its `scores` to label by hand."""
    return {
        "prompt": [message.model_dump() for message in ranking.messages],
        "responses": [response.text for response in ranking.responses],
        "scores": [response.score for response in ranking.responses],
        "authors": [response.author for response in ranking.responses],
        "split": ranking.split,
    }
