"""Converts scores to rankings: best first, with near-equal scores tied, and prompts without information dropped and counted.

Ties are formed from the top: the best response starts a group, and every response less than the margin below it joins the group
and gets its score; the best remaining response starts the next group. So ties are transitive, no two different scores in a
ranking are closer than the margin, and ranking a ranking again does not change it.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from aligndistill.config.run import Rankings
from aligndistill.errors import ConfigError, DataError
from aligndistill.preferences import scores
from aligndistill.records import Candidate, Comparison, Grade, Prompt, Ranking, Response, Verdict

DropReason = Literal["fewer than two answers", "all tied"]

ARITHMETIC_MARGIN = 1e-9
"""Scores closer than this differ only by rounding and are always tied."""

LEAST_PROBABILITY = 1e-6
"""Probabilities nearer to 0, or to 1, are taken as this far away, and so are tied: their log-odds are mostly rounding."""


@dataclass(frozen=True)
class RankingOutcome:
    """The result for one prompt.

    Attributes:
        ranking: the ranking, or None when the prompt was dropped.
        dropped: why it was dropped, or None.
        no_verdict: how many answers were dropped because no verdict on them could be parsed.
        tied: the ranking, if it was dropped because all answers are tied; soft labels can use it (P = 1/2).
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
        first_advantage: the judge's position bias, logits, used for pairs shown in one order only (see
            `scores.first_position_logit`).

    Raises:
        ConfigError: `aggregate` does not apply to this judge's verdicts.
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
    """Convert a loaded ranking, with the data set's scores, to the form returned by `rank_responses`.

    Probabilities become log-odds: by Bradley-Terry, i beats j with probability sigmoid(log-odds_i - log-odds_j) if those are of
    beating the same opponent. Scores are divided by the temperature; a response whose score is not finite counts as one without a
    verdict.

    Raises:
        DataError: a score is no probability, but the settings say that they are.
    """
    on_logit_scale = _log_odds if settings.scores == "probabilities" else float
    scored = [
        response.model_copy(update={"score": on_logit_scale(response.score) / settings.temperature})
        for response in ranking.responses
        if math.isfinite(response.score)
    ]
    no_verdict = len(ranking.responses) - len(scored)
    return _finished(ranking.model_copy(update={"responses": tuple(scored)}), settings.tie_margin, no_verdict)


def _log_odds(probability: float) -> float:
    if not 0 <= probability <= 1:
        raise DataError(
            f"rankings.scores is 'probabilities', but rankings.source has the score {probability:g}. "
            "Set rankings.scores to logits, and rankings.temperature to fit."
        )
    inside = min(max(probability, LEAST_PROBABILITY), 1 - LEAST_PROBABILITY)
    return scores.log_odds(inside)


def _scores(verdicts: Sequence[Verdict], settings: Rankings, first_advantage: float) -> dict[str, float]:
    comparisons = [verdict for verdict in verdicts if isinstance(verdict, Comparison)]
    grades = [verdict for verdict in verdicts if isinstance(verdict, Grade)]
    assert not (comparisons and grades), "a judge either compares or grades"
    aggregate = settings.aggregate
    if aggregate == "auto":
        aggregate = "bradley_terry" if comparisons else "mean_grade"
    if aggregate == "mean_grade" and comparisons:
        raise ConfigError(
            "rankings.aggregate is 'mean_grade', but this judge gives comparisons, not grades. "
            "Set rankings.aggregate to auto, bradley_terry or win_probability."
        )
    if aggregate != "mean_grade" and grades:
        raise ConfigError(
            f"rankings.aggregate is '{aggregate}', but this judge gives grades, not comparisons. "
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
    """Best first, with ties by the margin; tied responses are ordered by id, which is independent of quality."""
    leader = math.inf
    tied = []
    for response in sorted(responses, key=lambda response: -response.score):
        if leader - response.score >= margin:
            leader = response.score
        tied.append(response.model_copy(update={"score": leader}))
    return tuple(sorted(tied, key=lambda response: (-response.score, response.candidate_id)))
