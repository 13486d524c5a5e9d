"""Scores -> rankings: best first, near-equal scores made equal, and prompts that teach nothing left out and counted.

Ties by a margin are made from the top: the best response leads a group, which every response less than the margin below it
joins and whose score they take; the best of the others leads the next group. So being tied is transitive, no two different
scores in a ranking are closer than the margin, and ranking a ranking again changes nothing.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from aligndistill.config.run import Rankings
from aligndistill.errors import ConfigError
from aligndistill.preferences import scores
from aligndistill.records import Candidate, Comparison, Grade, Prompt, Ranking, Response, Verdict

DropReason = Literal["fewer than two answers", "all tied"]

ARITHMETIC_MARGIN = 1e-9
"""Scores closer than this differ by rounding only, and are tied whatever the settings say."""


@dataclass(frozen=True)
class RankingOutcome:
    """What became of one prompt.

    Attributes:
        ranking: the ranking, or None when the prompt was dropped.
        dropped: why it was dropped, or None.
        no_verdict: how many answers were left out because no verdict on them could be read.
        tied: the ranking that was dropped because all of it is tied: nothing to a hard label, and P = 1/2 to a soft one.
    """

    ranking: Ranking | None
    dropped: DropReason | None
    no_verdict: int
    tied: Ranking | None = None


def rank_responses(
    prompt: Prompt, candidates: Sequence[Candidate], verdicts: Sequence[Verdict], settings: Rankings, first_advantage: float = 0.0
) -> RankingOutcome:
    """Rank a prompt's candidates by the verdicts on them.

    Args:
        first_advantage: the judge's, logits, for pairs that it saw in one order only (see `scores.first_position_logit`).

    Raises:
        ConfigError: `aggregate` names a way that this judge's verdicts cannot be put together.
    """
    score_of = _scores(verdicts, settings, first_advantage)
    responses = [
        Response(
            text=candidate.text,
            score=score_of[candidate.id],
            candidate_id=candidate.id,
            author=candidate.author,
            finish=candidate.finish,
        )
        for candidate in candidates
        if candidate.id in score_of
    ]
    ranking = Ranking(prompt_id=prompt.id, split=prompt.split, messages=prompt.messages, responses=tuple(responses))
    return _finished(ranking, settings.tie_margin, no_verdict=len(candidates) - len(responses))


def rank_ready_made(ranking: Ranking, settings: Rankings) -> RankingOutcome:
    """Bring a loaded ranking, whose scores are as the data set gave them, to the form that `rank_responses` gives.

    Scores are divided by the temperature; a response whose score is not a finite number counts as one without a verdict.
    """
    scored = [
        response.model_copy(update={"score": response.score / settings.temperature})
        for response in ranking.responses
        if math.isfinite(response.score)
    ]
    no_verdict = len(ranking.responses) - len(scored)
    return _finished(ranking.model_copy(update={"responses": tuple(scored)}), settings.tie_margin, no_verdict)


def _scores(verdicts: Sequence[Verdict], settings: Rankings, first_advantage: float) -> dict[str, float]:
    comparisons = [verdict for verdict in verdicts if isinstance(verdict, Comparison)]
    grades = [verdict for verdict in verdicts if isinstance(verdict, Grade)]
    assert not (comparisons and grades), "a judge either compares or grades"
    aggregate = settings.aggregate
    if aggregate == "auto":
        aggregate = "bradley_terry" if comparisons else "mean_grade"
    if aggregate == "mean_grade" and comparisons:
        raise ConfigError(
            "rankings.aggregate is 'mean_grade', and this judge compares: it gives no grades. "
            "Set rankings.aggregate to auto, bradley_terry or win_probability."
        )
    if aggregate != "mean_grade" and grades:
        raise ConfigError(
            f"rankings.aggregate is '{aggregate}', and this judge grades: it gives no comparisons. "
            "Set rankings.aggregate to auto or mean_grade."
        )
    match aggregate:
        case "bradley_terry":
            return scores.scores_from_comparisons(comparisons, first_advantage)
        case "win_probability":
            return scores.win_probability(comparisons)
        case "mean_grade":
            return scores.mean_grade(grades, settings.temperature)


def _finished(ranking: Ranking, tie_margin: float, no_verdict: int) -> RankingOutcome:
    responses = _ordered(ranking.responses, max(tie_margin, ARITHMETIC_MARGIN))
    if len(responses) < 2:
        return RankingOutcome(None, "fewer than two answers", no_verdict)
    ordered = ranking.model_copy(update={"responses": responses})
    if responses[0].score == responses[-1].score:
        return RankingOutcome(None, "all tied", no_verdict, ordered)
    return RankingOutcome(ordered, None, no_verdict)


def _ordered(responses: Iterable[Response], margin: float) -> tuple[Response, ...]:
    """Best first, ties made by the margin; equals in the order of their ids, which say nothing about the answers."""
    leader = math.inf
    tied = []
    for response in sorted(responses, key=lambda response: -response.score):
        if leader - response.score >= margin:
            leader = response.score
        tied.append(response.model_copy(update={"score": leader}))
    return tuple(sorted(tied, key=lambda response: (-response.score, response.candidate_id)))
