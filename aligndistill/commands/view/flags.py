"""What the filters of the samples look for, computed once for each prompt and model when a run is indexed."""

from collections.abc import Mapping, Sequence
from typing import Any

from aligndistill.commands.view.rows import prompt_verdicts

# Of a model's answers to a prompt.
WORSE, LONGER_LOST, FLIP, UNREADABLE, NEAR_TIE, TRUNCATED, IDENTICAL, REWARD_UP = (1 << bit for bit in range(8))
# Of a prompt.
CANARY_WON, DISAGREE, LABEL_FLIP, LABEL_UNREADABLE, JUDGES_DIFFER = (1 << bit for bit in range(5))

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
    "judges_differ": (JUDGES_DIFFER, "judges differ", "the second judge prefers the other of two candidates"),
}

Asked = Mapping[tuple[str, str], Sequence[float | None]]
Answers = Sequence[tuple[Any, ...]]
"""Of one author to one prompt: sample, key, truth, reward, win, length, KL, truncated, and where it is."""


Means = Sequence[float | None]
"""Of the same answers: truth, reward, win, length, KL."""


def cell_flags(answers: Answers, means: Means, starts: Answers, start_means: Means, asked: Asked) -> int:
    """The flags of a model's answers to a prompt, given the start's (none for the start itself) and the judge's verdicts."""
    found = 0
    for one in answers:
        if one[7]:
            found |= TRUNCATED
    if not starts:
        return found
    for ours, theirs in zip(answers, starts, strict=False):
        found |= _pair_flags(ours, theirs, asked)
    truth, reward, win = means[:3]
    start_truth, start_reward = start_means[:2]
    lower_truth = truth is not None and start_truth is not None and truth < start_truth
    if lower_truth:
        found |= WORSE
    higher_reward = reward is not None and start_reward is not None and reward > start_reward
    if higher_reward and (lower_truth or (win is not None and win < 0.5)):
        found |= REWARD_UP
    return found


def _pair_flags(ours: tuple[Any, ...], theirs: tuple[Any, ...], asked: Asked) -> int:
    """The flags of an answer beside the start's."""
    key, start_key, win = ours[1], theirs[1], ours[4]
    same = key == start_key
    found = IDENTICAL if same else 0
    forwards, backwards = asked.get((key, start_key), ()), asked.get((start_key, key), ())
    if same or not (forwards or backwards):  # grades have no order: the win says it
        if win == 0.0:
            found |= WORSE
    elif all(p is not None and p < 0.5 for p in forwards) and all(p is not None and p > 0.5 for p in backwards):
        found |= WORSE
    if win is not None:
        if win < 0.5 and ours[5] > theirs[5]:
            found |= LONGER_LOST
        if not same and abs(win - 0.5) < NEAR_TIE_MARGIN:
            found |= NEAR_TIE
    if _order_decides(forwards, backwards) and not same:
        found |= FLIP
    grades = (asked.get((key, ""), ()), asked.get((start_key, ""), ()))
    if None in forwards or None in backwards or None in grades[0] or None in grades[1]:
        found |= UNREADABLE
    return found


def prompt_flags(asked: Asked, second: Asked) -> int:
    """The flags of a prompt, given the verdicts on its candidates and the second judge's."""
    found = JUDGES_DIFFER if second and _judges_differ(asked, second) else 0  # few prompts have a second judge's
    if any(first < second and flips(asked, first, second) for first, second in ((*sorted(pair),) for pair in asked if pair[1])):
        found |= LABEL_FLIP
    if any(p is None for values in asked.values() for p in values):
        found |= LABEL_UNREADABLE
    return found


def _judges_differ(asked: Asked, second: Asked) -> bool:
    ours, theirs = (
        prompt_verdicts((one, other, value) for (one, other), values in verdicts.items() for value in values)
        for verdicts in (asked, second)
    )
    return ours.disagrees_with(theirs)


def flips(asked: Asked, one: str, other: str) -> bool:
    """Whether the winner of a pair changes with the order in which it is shown."""
    return one != other and _order_decides(asked.get((one, other), ()), asked.get((other, one), ()))


def _order_decides(forwards: Sequence[float | None], backwards: Sequence[float | None]) -> bool:
    """Whether P(first is better) lies on the same side of one half in both orders; verdicts that could not be read are left out."""
    if not forwards or not backwards:
        return False
    a = [p for p in forwards if p is not None]
    b = [p for p in backwards if p is not None]
    return bool(a and b) and (sum(a) / len(a) - 0.5) * (sum(b) / len(b) - 0.5) > 0
