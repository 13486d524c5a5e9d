"""What the filters of the samples look for, computed once for each prompt and model when a run is indexed."""

from collections.abc import Mapping, Sequence
from typing import Any

# Of a model's answers to a prompt.
WORSE, LONGER_LOST, FLIP, UNREADABLE, NEAR_TIE, TRUNCATED, IDENTICAL, REWARD_UP = (1 << bit for bit in range(8))
# Of a prompt.
CANARY_WON, DISAGREE, LABEL_FLIP, LABEL_UNREADABLE = (1 << bit for bit in range(4))

NEAR_TIE_MARGIN = 0.1

CELL_FILTERS = {
    "worse": (WORSE, "worse than start", "lower truth than the start, or the judge prefers the start in every order asked"),
    "longer_lost": (LONGER_LOST, "longer lost", "longer than the start's answer, and the judge prefers the start's"),
    "flip": (FLIP, "order flip", "the judge's choice changes with the order of the answers"),
    "unreadable": (UNREADABLE, "unreadable", "a verdict that could not be read"),
    "near_tie": (
        NEAR_TIE,
        "near tie",
        f"the judge's probability is within {NEAR_TIE_MARGIN:g} of one half, for two different texts",
    ),
    "truncated": (TRUNCATED, "truncated", "an answer was cut off at the limit of tokens"),
    "identical": (IDENTICAL, "identical to start", "the same text as the start's answer"),
    "reward_up": (
        REWARD_UP,
        "reward up, truth or judge down",
        "a higher reward than the start's, with lower truth or a lost comparison",
    ),
}
PROMPT_FILTERS = {
    "canary_won": (CANARY_WON, "canary won", "the judge preferred a known-bad answer"),
    "disagree": (DISAGREE, "students disagree", "one student beats the start and another loses"),
    "label_flip": (LABEL_FLIP, "order flip in labelling", "a choice between candidates changes with their order"),
    "label_unreadable": (LABEL_UNREADABLE, "unreadable in labelling", "a verdict on candidates that could not be read"),
}

Asked = Mapping[tuple[str, str], Sequence[float | None]]
Answers = Sequence[tuple[Any, ...]]
"""Of one author to one prompt: sample, key, truth, reward, win, length, KL, truncated, and where it is."""


Means = Sequence[float | None]
"""Of the same answers: truth, reward, win, length, KL."""


def cell_flags(answers: Answers, means: Means, starts: Answers, start_means: Means, same: Sequence[bool], asked: Asked) -> int:
    """The flags of a model's answers to a prompt, given the start's (none for the start itself) and the judge's verdicts."""
    found = TRUNCATED if any(one[7] for one in answers) else 0
    if not starts:
        return found
    found |= IDENTICAL if any(same) else 0
    pairs = list(zip(answers, starts, strict=False))
    truth, reward, win, *_ = means
    start_truth, start_reward, *_ = start_means
    lower_truth = truth is not None and start_truth is not None and truth < start_truth
    if lower_truth or any(_loses_every_order(ours, theirs, asked) for ours, theirs in pairs):
        found |= WORSE
    if any(ours[4] is not None and ours[4] < 0.5 and ours[5] > theirs[5] for ours, theirs in pairs):
        found |= LONGER_LOST
    if any(ours[4] is not None and abs(ours[4] - 0.5) < NEAR_TIE_MARGIN and ours[1] != theirs[1] for ours, theirs in pairs):
        found |= NEAR_TIE
    if (
        reward is not None
        and start_reward is not None
        and reward > start_reward
        and (lower_truth or (win is not None and win < 0.5))
    ):
        found |= REWARD_UP
    for ours, theirs in pairs if asked else ():
        if flips(asked, ours[1], theirs[1]):
            found |= FLIP
        orders = (asked.get((ours[1], theirs[1]), ()), asked.get((theirs[1], ours[1]), ()))
        grades = (asked.get((ours[1], ""), ()), asked.get((theirs[1], ""), ()))
        if any(p is None for values in (*orders, *grades) for p in values):
            found |= UNREADABLE
    return found


def prompt_flags(asked: Asked, canary_won: bool, students_disagree: bool = False) -> int:
    """The flags of a prompt, given the verdicts on its candidates."""
    found = (CANARY_WON if canary_won else 0) | (DISAGREE if students_disagree else 0)
    if any(first < second and flips(asked, first, second) for first, second in ((*sorted(pair),) for pair in asked if pair[1])):
        found |= LABEL_FLIP
    if any(p is None for values in asked.values() for p in values):
        found |= LABEL_UNREADABLE
    return found


def flips(asked: Asked, one: str, other: str) -> bool:
    """Whether the winner of a pair changes with the order in which it is shown."""
    forwards = [p for p in asked.get((one, other), ()) if p is not None]
    backwards = [1 - p for p in asked.get((other, one), ()) if p is not None]
    if one == other or not forwards or not backwards:
        return False
    a, b = sum(forwards) / len(forwards), sum(backwards) / len(backwards)
    return (a > 0.5 and b < 0.5) or (a < 0.5 and b > 0.5)


def _loses_every_order(ours: tuple[Any, ...], theirs: tuple[Any, ...], asked: Asked) -> bool:
    every = [*asked.get((ours[1], theirs[1]), ()), *(None if p is None else 1 - p for p in asked.get((theirs[1], ours[1]), ()))]
    if not every or ours[1] == theirs[1]:  # grades have no order: the win says it
        return ours[4] is not None and ours[4] == 0.0
    return all(p is not None and p < 0.5 for p in every)
