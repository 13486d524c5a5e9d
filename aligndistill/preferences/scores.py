"""Verdicts on a prompt's candidates -> a score for each, on the logit scale: P(i beats j) = sigmoid(score_i - score_j).

Unparsed comparisons and grades that could not be read are left out. A candidate without any readable verdict gets no score.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from aligndistill.records import Comparison, Grade, group_by_prompt, probability_first

if TYPE_CHECKING:  # it imports numpy, which whoever only builds a pipeline does not wait for
    from aligndistill.preferences.strengths import Win

PROMPTS_FOR_ADVANTAGE = 500
"""Enough to know what all share; more would only take time."""


def sigmoid(logit: float) -> float:
    """P(i beats j) from the difference of their scores, without overflow."""
    return (1 + math.tanh(logit / 2)) / 2


def scores_from_comparisons(comparisons: Sequence[Comparison], position_logit: float = 0.0) -> dict[str, float]:
    """Bradley-Terry strengths with mean 0, by candidate id. Each comparison is one observation.

    Args:
        first_advantage: of the judge, logits (see `first_position_logit`); taken off pairs that were shown in one order only.
    """
    from aligndistill.preferences.strengths import strengths

    match_ = _contest(comparisons)
    return dict(zip(match_.ids, strengths(len(match_.ids), match_.wins, position_logit=position_logit), strict=True))


def first_position_logit(comparisons: Sequence[Comparison]) -> float:
    """What being shown first is worth to an answer, logits: the most likely value over a judge's comparisons of many prompts.

    0 where nothing was shown in one order only: then each answer has had the advantage.
    """
    from aligndistill.preferences.strengths import Match, position_logit

    # Nobody was shown a panel's verdict in an order.
    by_prompt = group_by_prompt(comparison for comparison in comparisons if not comparison.members)
    matches = [_contest(by_prompt[prompt]) for prompt in sorted(by_prompt)[:PROMPTS_FOR_ADVANTAGE]]
    if not any({(w.first, w.second) for w in one.wins} - {(w.second, w.first) for w in one.wins} for one in matches):
        return 0.0
    return position_logit([Match(len(one.ids), one.wins) for one in matches])


@dataclass(frozen=True)
class _ById:
    """The comparisons of one prompt with its candidates numbered."""

    ids: list[str]
    wins: "list[Win]"


def _contest(comparisons: Sequence[Comparison]) -> _ById:
    from aligndistill.preferences.strengths import Win

    readable = _readable(comparisons)
    ids = sorted({candidate for first, second, _ in readable for candidate in (first, second)})
    number = {candidate: index for index, candidate in enumerate(ids)}
    return _ById(ids, [Win(number[first], number[second], probability) for first, second, probability in readable])


def win_probability(comparisons: Sequence[Comparison]) -> dict[str, float]:
    """Scores from each candidate's mean win probability, by candidate id.

    Both orders of a pair are averaged first, so that a pair asked twice counts as one opponent and a taste for the first
    position cancels. A candidate's mean w over its k opponents, from m comparisons, gives the score

        logit(clip(w, 1 / (2m + 2), 1 - 1 / (2m + 2))) * k / (k + 1)

    The bounds are the estimates of Krichevsky and Trofimov (half a win and half a loss added) for none and all of m wins: few
    comparisons cannot show that somebody never loses. The factor is there because w is measured against the others, whose mean
    score is -score / k when all sum to 0. So two candidates differ by exactly the logit of their probability, where that lies
    within the bounds. Bounds also cut a judge's own probabilities; `scores_from_comparisons` keeps those.
    """
    both_orders: defaultdict[frozenset[str], list[tuple[str, float]]] = defaultdict(list)
    for first, second, probability in _readable(comparisons):
        both_orders[frozenset((first, second))].append((first, probability))
    wins: defaultdict[str, list[float]] = defaultdict(list)
    asked: defaultdict[str, int] = defaultdict(int)
    for pair, verdicts in both_orders.items():
        for candidate in pair:
            wins[candidate].append(fmean(p if first == candidate else 1 - p for first, p in verdicts))
            asked[candidate] += len(verdicts)
    scores = {}
    for candidate in sorted(wins):
        opponents = len(wins[candidate])
        bound = 1 / (2 * asked[candidate] + 2)
        mean = min(max(fmean(wins[candidate]), bound), 1 - bound)
        scores[candidate] = math.log(mean / (1 - mean)) * opponents / (opponents + 1)
    return scores


def mean_grade(grades: Sequence[Grade], temperature: float) -> dict[str, float]:
    """The mean of each candidate's readable grades, divided by `temperature`, by candidate id."""
    values: defaultdict[str, list[float]] = defaultdict(list)
    for grade in grades:
        if grade.value is not None and math.isfinite(grade.value):
            values[grade.candidate].append(grade.value)
    return {candidate: fmean(values[candidate]) / temperature for candidate in sorted(values)}


def _readable(comparisons: Sequence[Comparison]) -> list[tuple[str, str, float]]:
    """(first, second, P(first is better)) of the comparisons that could be read."""
    probabilities = ((comparison, probability_first(comparison)) for comparison in comparisons)
    return [(comparison.first, comparison.second, p) for comparison, p in probabilities if p is not None]
