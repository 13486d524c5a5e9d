"""How hard a prompt is for the student, by the judge's scores, and a choice of prompts that prefers hard ones."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean

from aligndistill.preferences.scores import sigmoid
from aligndistill.records import Ranking, content_hash

STUDENT, TEACHER = "start", "teacher"
"""The authors of candidates: in every round, `start` is the student that the round begins with."""


@dataclass(frozen=True)
class Difficulty:
    """Of one prompt.

    Attributes:
        accept_rate: the mean probability that the judge takes an answer of the student for a better one's (see `difficulty_of`).
        difficulty: grows with what the student lacks: logits against a teacher, a probability otherwise.
    """

    accept_rate: float
    difficulty: float


def difficulties(rankings: Iterable[Ranking]) -> dict[str, Difficulty]:
    """The difficulty of each prompt that has one, by its id: against the teacher if both have answers in any of the rankings."""
    both = [(one.prompt_id, difficulty_of(one, taught=True), difficulty_of(one, taught=False)) for one in rankings]
    against_teacher = {prompt: one for prompt, one, _ in both if one is not None}
    return against_teacher or {prompt: one for prompt, _, one in both if one is not None}


def difficulty_of(ranking: Ranking, *, taught: bool) -> Difficulty | None:
    """The difficulty of a prompt, from the scores r of its answers; None without one of the student, or of the teacher if taught.

    Taught: the accept rate is the mean of sigmoid(r_s - r_t) over the answers s of the student and t of the teacher, and the
    difficulty the mean of r_t less the mean of r_s. Otherwise, with the best answer b: the accept rate is the mean of
    sigmoid(r_s - r_b) over s, where b itself counts 1/2, and the difficulty 1 less the accept rate.
    """
    students = [one.score for one in ranking.responses if one.author == STUDENT]
    others = [one.score for one in ranking.responses if one.author == TEACHER] if taught else [ranking.responses[0].score]
    if not students or not others:
        return None
    accepted = fmean(sigmoid(ours - theirs) for ours in students for theirs in others)
    return Difficulty(accepted, fmean(others) - fmean(students) if taught else 1 - accepted)


def drawn(difficulty: Mapping[str, float], count: int, *seed: str) -> set[str]:
    """So many prompts, drawn without replacement, each in proportion to its rank: 1 for the easiest, n for the hardest of n.

    Equal difficulties share their mean rank. Each prompt gets the key u^(1/rank) with u from a hash of seed and prompt, and the
    largest keys are drawn (Efraimidis and Spirakis 2006).
    """
    keys: list[tuple[float, str]] = []
    easier = 0
    for _, equal in groupby(sorted(difficulty, key=lambda name: (difficulty[name], name)), difficulty.__getitem__):
        names = list(equal)
        rank = easier + (len(names) + 1) / 2
        easier += len(names)
        keys += [(_uniform(*seed, name) ** (1 / rank), name) for name in names]
    return {name for _, name in sorted(keys, reverse=True)[:count]}


def hardest(difficulty: Mapping[str, float], count: int, *seed: str) -> list[str]:
    """So many prompts, the hardest first; equally hard ones in the order of a hash of seed and prompt."""
    return sorted(difficulty, key=lambda name: (-difficulty[name], content_hash("hardest", *seed, name)))[:count]


def _uniform(*parts: str) -> float:
    """A number in (0, 1) that follows from the parts."""
    digits = content_hash("draw", *parts)
    return (int(digits, 16) + 0.5) / float(16 ** len(digits))
