"""Combines the probabilities of several judges into one verdict, and stores the members' verdicts with it."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from aligndistill.judges.protocol import Judge, Judged, Task
from aligndistill.preferences.scores import log_odds, sigmoid
from aligndistill.records import Comparison, Grade, Usage, Verdict, content_hash, outcome_of, probability_first, total

Combine = Literal["mean", "vote", "product"]

SUREST = 0.99
"""The probabilities of a product's members are clipped to this: one that gives 0 or 1 would otherwise overrule the others."""


@dataclass(frozen=True)
class Member:
    """A judge of a panel.

    Attributes:
        weight: its weight relative to the other members.
        temperature: grades are divided by this before their difference is used as a logit.
    """

    judge: Judge
    weight: float = 1.0
    temperature: float = 1.0


class PanelJudge:
    """Compares by the verdicts of several judges of any kind; a member without a parsed verdict on a pair is ignored for it.

    Args:
        combine: `mean`: the weighted mean of P(one beats other). `vote`: the weighted share of members that prefer it; ties
            count half. `product`: a product of experts (Hinton 2002): the weighted sum of the logits.
    """

    def __init__(self, name: str, members: Sequence[Member], combine: Combine = "mean") -> None:
        self.name = name
        self._members = members
        self._combine = combine

    def judge(self, tasks: Sequence[Task]) -> Iterator[Judged]:
        """See `Judge`. The members judge one after another; a task is yielded when the last of them has judged it."""
        earlier: list[dict[str, tuple[Verdict, ...]]] = [
            {judged.prompt_id: judged.verdicts for judged in member.judge.judge(tasks)} for member in self._members[:-1]
        ]
        place = {task.prompt_id: index for index, task in enumerate(tasks)}
        for judged in self._members[-1].judge.judge(tasks):
            of_members = [of_one.get(judged.prompt_id) for of_one in earlier]
            whole = [one for one in of_members if one is not None]
            if len(whole) == len(of_members):  # otherwise a batch file lacks answers
                yield self._combined(tasks[place[judged.prompt_id]], [*whole, judged.verdicts])

    def _combined(self, task: Task, of_members: Sequence[Sequence[Verdict]]) -> Judged:
        by_member = [_ByPair.of(verdicts) for verdicts in of_members]
        counted: set[int] = set()
        verdicts = []
        for first, second in self._pairs(task, by_member):
            members = [verdict for known in by_member for verdict in known.on(first, second)]
            fresh = [verdict for verdict in members if id(verdict) not in counted]  # a grade belongs to several pairs
            counted |= {id(verdict) for verdict in fresh}
            asked = [
                (known.probability(first, second, member.temperature), member.weight)
                for known, member in zip(by_member, self._members, strict=True)
            ]
            probability = combined([(p, weight) for p, weight in asked if p is not None], self._combine)
            verdicts.append(
                Comparison(
                    prompt_id=task.prompt_id,
                    first=first,
                    second=second,
                    probability_first=probability,
                    outcome=outcome_of(probability),
                    judge=self.name,
                    usage=total(*(verdict.usage for verdict in fresh)) if fresh else Usage(),
                    members=tuple(members),
                )
            )
        return Judged(task.prompt_id, tuple(verdicts))

    def _pairs(self, task: Task, by_member: Sequence["_ByPair"]) -> list[tuple[str, str]]:
        """The task's `pairs`, or all pairs with a member's verdict; the order within a pair is chosen by hash."""
        ids = [candidate.id for candidate in task.candidates]
        pairs = []
        for one, other in task.wanted_pairs:
            first, second = sorted((ids[one], ids[other]), key=lambda identity: content_hash("panel", identity))
            if task.pairs is not None or any(known.on(first, second) for known in by_member):
                pairs.append((first, second))
        return pairs


@dataclass(frozen=True)
class _ByPair:
    """One member's verdicts on one task."""

    comparisons: dict[frozenset[str], list[Comparison]]
    grades: dict[str, Grade]

    @classmethod
    def of(cls, verdicts: Sequence[Verdict]) -> "_ByPair":
        comparisons: dict[frozenset[str], list[Comparison]] = defaultdict(list)
        grades: dict[str, Grade] = {}
        for verdict in verdicts:
            if isinstance(verdict, Grade):
                grades[verdict.candidate] = verdict
            else:
                comparisons[frozenset((verdict.first, verdict.second))].append(verdict)
        return cls(dict(comparisons), grades)

    def on(self, first: str, second: str) -> list[Verdict]:
        """The verdicts on two answers."""
        if first in self.grades and second in self.grades:
            return [self.grades[first], self.grades[second]]
        return list(self.comparisons.get(frozenset((first, second)), ()))

    def probability(self, first: str, second: str, temperature: float) -> float | None:
        """P(first beats second), from both grades or as the mean over the parsed orders; None without any."""
        if first in self.grades and second in self.grades:
            one, other = self.grades[first].value, self.grades[second].value
            return None if one is None or other is None else sigmoid((one - other) / temperature)
        read = []
        for comparison in self.comparisons.get(frozenset((first, second)), ()):
            probability = probability_first(comparison)
            if probability is not None:
                read.append(probability if comparison.first == first else 1 - probability)
        return sum(read) / len(read) if read else None


def combined(votes: Sequence[tuple[float, float]], combine: Combine) -> float | None:
    """One probability from several with weights; None if there are none."""
    if not votes:
        return None
    whole = sum(weight for _, weight in votes)
    match combine:
        case "mean":
            return sum(p * weight for p, weight in votes) / whole
        case "vote":
            return sum((1 + (p > 0.5) - (p < 0.5)) / 2 * weight for p, weight in votes) / whole
        case "product":
            return sigmoid(sum(weight * log_odds(min(max(p, 1 - SUREST), SUREST)) for p, weight in votes))
