"""Converts verdicts on a prompt's candidates to scores on the logit scale: P(i beats j) = sigmoid(score_i - score_j).

Unparsed comparisons and grades are ignored. A candidate without any parsed verdict gets no score.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from aligndistill.records import Comparison, Grade, probability_first

if TYPE_CHECKING:  # it imports numpy, which is slow and not needed to build a pipeline
    from aligndistill.preferences.strengths import Win

PROMPTS_FOR_ADVANTAGE = 500
"""Enough prompts to estimate the position bias; more would only take time."""


def sigmoid(logit: float) -> float:
    """P(i beats j) from the difference of their scores, without overflow."""
    return (1 + math.tanh(logit / 2)) / 2


def scores_from_comparisons(comparisons: Sequence[Comparison], position_logit: float = 0.0) -> dict[str, float]:
    """Bradley-Terry strengths with mean 0, by candidate id. Each comparison is one observation.

    Args:
        position_logit: the judge's position bias, logits (see `first_position_logit`); subtracted from pairs shown in one order
            only.
    """
    from aligndistill.preferences.strengths import strengths

    numbered = _numbered(comparisons)
    return dict(zip(numbered.ids, strengths(len(numbered.ids), numbered.wins, position_logit=position_logit), strict=True))


def first_position_logit(comparisons: Iterable[Comparison]) -> float:
    """A judge's bias for the answer shown first, logits: the maximum-likelihood value over its comparisons of many prompts.

    0 if every pair was shown in both orders: the bias then cancels. Only the comparisons that are used are kept in memory.
    """
    from aligndistill.preferences.strengths import Match, position_logit

    # A panel's verdicts have no order.
    prompts = [_numbered(of_one) for of_one in _of_first_prompts(one for one in comparisons if not one.members)]
    if not any({(w.first, w.second) for w in one.wins} - {(w.second, w.first) for w in one.wins} for one in prompts):
        return 0.0
    return position_logit([Match(len(one.ids), one.wins) for one in prompts])


def _of_first_prompts(comparisons: Iterable[Comparison]) -> list[list[Comparison]]:
    """The comparisons of the prompts that `PROMPTS_FOR_ADVANTAGE` allows, those with the smallest ids, in the order of the ids."""
    found: defaultdict[str, list[Comparison]] = defaultdict(list)
    largest: str | None = None
    for one in comparisons:
        if largest is None or one.prompt_id <= largest:
            found[one.prompt_id].append(one)
        if len(found) > 2 * PROMPTS_FOR_ADVANTAGE:
            largest = sorted(found)[PROMPTS_FOR_ADVANTAGE - 1]
            found = defaultdict(list, {prompt: of_one for prompt, of_one in found.items() if prompt <= largest})
    return [found[prompt] for prompt in sorted(found)[:PROMPTS_FOR_ADVANTAGE]]


@dataclass(frozen=True)
class _ById:
    """The comparisons of one prompt with its candidates numbered."""

    ids: list[str]
    wins: "list[Win]"


def _numbered(comparisons: Sequence[Comparison]) -> _ById:
    from aligndistill.preferences.strengths import Win

    readable = _readable(comparisons)
    ids = sorted({candidate for first, second, _ in readable for candidate in (first, second)})
    number = {candidate: index for index, candidate in enumerate(ids)}
    return _ById(ids, [Win(number[first], number[second], probability) for first, second, probability in readable])


def win_probability(comparisons: Sequence[Comparison]) -> dict[str, float]:
    """Scores from each candidate's mean win probability, by candidate id.

    Both orders of a pair are averaged first, so that a pair asked twice counts as one opponent and position bias cancels.
    A candidate's mean w over its k opponents, from m comparisons, gives the score

        logit(clip(w, 1 / (2m + 2), 1 - 1 / (2m + 2))) * k / (k + 1)

    The bounds are the Krichevsky-Trofimov estimates (half a win and half a loss added) for 0 and m of m wins: few comparisons
    cannot show that a candidate never loses. The factor corrects for w being measured against the others, whose mean score is
    -score / k when all sum to 0. So two candidates differ by exactly the logit of their probability, if that is within the
    bounds. The bounds also clip a judge's own probabilities; `scores_from_comparisons` does not.
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
        scores[candidate] = log_odds(mean) * opponents / (opponents + 1)
    return scores


def log_odds(probability: float) -> float:
    """The difference of scores at which one of two wins with this probability, in (0, 1)."""
    return math.log(probability / (1 - probability))


def mean_grade(grades: Sequence[Grade], temperature: float) -> dict[str, float]:
    """The mean of each candidate's readable grades, divided by `temperature`, by candidate id."""
    values: defaultdict[str, list[float]] = defaultdict(list)
    for grade in grades:
        if grade.value is not None and math.isfinite(grade.value):
            values[grade.candidate].append(grade.value)
    return {candidate: fmean(values[candidate]) / temperature for candidate in sorted(values)}


def _readable(comparisons: Sequence[Comparison]) -> list[tuple[str, str, float]]:
    """(first, second, P(first is better)) of the parsed comparisons."""
    probabilities = ((comparison, probability_first(comparison)) for comparison in comparisons)
    return [(comparison.first, comparison.second, p) for comparison, p in probabilities if p is not None]
