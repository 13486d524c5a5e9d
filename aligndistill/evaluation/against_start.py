"""A student's answers beside the start's to the same prompts: wins, ties and losses, and paired differences. Pure functions."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

from aligndistill.evaluation.intervals import Mean, paired_difference, wilson
from aligndistill.records import Record


@dataclass(frozen=True)
class ScoredText:
    """What was measured of one answer.

    Attributes:
        win: P(the judge prefers it to the start's answer); None without a readable verdict.
    """

    prompt: str
    length_tokens: int
    truth: float | None = None
    reward: float | None = None
    win: float | None = None


class AgainstStart(Record):
    """A student beside the start.

    Attributes:
        wins, ties, losses: comparisons with the start's answer by the judge, which P(win) is above, at or below one half of.
        unreadable: comparisons without a readable verdict; an answer without one of the start beside it is not compared.
        worse: share of prompts on which the student's answer has a lower truth than the start's, or, without truth, loses to it;
            Wilson interval.
        truth, reward, length_tokens: the student's minus the start's, mean over the prompts that both answered, paired.
    """

    wins: int = 0
    ties: int = 0
    losses: int = 0
    unreadable: int = 0
    worse: Mean | None = None
    truth: Mean | None = None
    reward: Mean | None = None
    length_tokens: Mean | None = None

    @property
    def compared(self) -> int:
        """How many comparisons have a readable verdict."""
        return self.wins + self.ties + self.losses


Values = dict[str, dict[str, float]]
"""Measure -> prompt -> mean over its answers."""


def against_start(student: Iterable[ScoredText], start: Iterable[ScoredText], judged: bool) -> AgainstStart:
    """Compare a student with the start, prompt by prompt.

    Args:
        judged: whether the judge was asked; without it no verdict is missing.
    """
    answers, starts = list(student), list(start)
    ours, theirs = _values(answers), _values(starts)
    pairs = Counter(one.prompt for one in answers) & Counter(one.prompt for one in starts)
    wins = [one.win for one in answers if one.win is not None]
    gains = [value - theirs["truth"][prompt] for prompt, value in ours["truth"].items() if prompt in theirs["truth"]]
    worse = [gain < 0 for gain in gains] if gains else [win < 0.5 for win in ours["win"].values()]
    return AgainstStart(
        wins=sum(win > 0.5 for win in wins),
        ties=sum(win == 0.5 for win in wins),
        losses=sum(win < 0.5 for win in wins),
        unreadable=pairs.total() - len(wins) if judged else 0,
        worse=wilson(sum(worse), len(worse)) if worse else None,
        truth=paired_difference(theirs["truth"], ours["truth"]),
        reward=paired_difference(theirs["reward"], ours["reward"]),
        length_tokens=paired_difference(theirs["length_tokens"], ours["length_tokens"]),
    )


def _values(answers: Iterable[ScoredText]) -> Values:
    of_measure: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for one in answers:
        for measure in ("truth", "reward", "win", "length_tokens"):
            value = getattr(one, measure)
            if value is not None:
                of_measure[measure][one.prompt].append(value)
    return defaultdict(dict, {name: {prompt: fmean(values) for prompt, values in of.items()} for name, of in of_measure.items()})
