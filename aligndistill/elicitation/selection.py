"""Which of the answers to a prompt are kept, and how hard the prompt was by their number."""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from aligndistill.records import Candidate

Answer = Callable[[Candidate], str | None]
"""A candidate to its final answer; None if it has none."""

NO_MAJORITY, NO_VERDICT, LOW_GRADE, REJECTED, NOT_BEST, OTHER_ANSWER, SAME_ANSWER = (
    "no majority",
    "no verdict",
    "graded too low",
    "rejected by the function",
    "not the best",
    "another answer than most",
    "same answer as one kept",
)


@dataclass(frozen=True)
class Kept:
    """The answers to one prompt that are kept.

    Attributes:
        candidates: in their order.
        dropped: the others, by reason, as numbers of samples.
        accepted: the share of the prompt's samples that the rule accepted, a measure of how easy the prompt is; None for rules that
            accept nothing by itself.
    """

    candidates: tuple[Candidate, ...]
    dropped: Mapping[str, int]
    accepted: float | None


def best(candidates: Sequence[Candidate], scores: Mapping[str, float]) -> Kept:
    """The candidate with the highest score, the first of equal ones. A single candidate needs no score."""
    if len(candidates) == 1:
        return Kept(tuple(candidates), {}, None)
    scored = [one for one in candidates if one.id in scores]
    without = sum(one.samples for one in candidates if one.id not in scores)
    if not scored:
        return Kept((), {NO_VERDICT: without}, None)
    first = max(scored, key=lambda one: scores[one.id])
    others = sum(one.samples for one in scored if one is not first)
    return Kept((first,), _counted({NO_VERDICT: without, NOT_BEST: others}), None)


def at_least(candidates: Sequence[Candidate], values: Mapping[str, float], least: float, too_low: str) -> Kept:
    """All candidates with at least this value: of a judge's grade, or of a function (RFT, Yuan et al. 2023, arXiv:2308.01825)."""
    kept = tuple(one for one in candidates if one.id in values and values[one.id] >= least)
    without = sum(one.samples for one in candidates if one.id not in values)
    low = sum(one.samples for one in candidates if one.id in values and values[one.id] < least)
    return Kept(kept, _counted({NO_VERDICT: without, too_low: low}), _share(kept, candidates))


def agreeing(candidates: Sequence[Candidate], answer: Answer, least: float) -> Kept:
    """The first candidate with the final answer that most samples have (self-consistency, Wang et al. 2022, arXiv:2203.11171).

    Nothing is kept of a prompt whose most frequent answer has less than this share of the samples, or as many as another. Samples
    without a final answer count among all.
    """
    votes: dict[str, int] = {}
    answer_of = {one.id: answer(one) for one in candidates}
    for one in candidates:
        if (final := answer_of[one.id]) is not None:
            votes[final] = votes.get(final, 0) + one.samples
    samples = sum(one.samples for one in candidates)
    order = sorted(votes, key=lambda final: -votes[final])
    highest = votes[order[0]] if order else 0
    tied = len(order) > 1 and votes[order[1]] == highest
    if not order or tied or highest < least * samples:
        return Kept((), {NO_MAJORITY: samples}, highest / samples)
    agree = [one for one in candidates if answer_of[one.id] == order[0]]
    same = highest - agree[0].samples
    return Kept((agree[0],), _counted({OTHER_ANSWER: samples - highest, SAME_ANSWER: same}), highest / samples)


def final_answer(text: str, pattern: str | None = None) -> str | None:
    """What is compared for agreement: the last line of a text, or the first group of a pattern's last match, in a normal form."""
    if pattern is None:
        lines = [line for line in text.splitlines() if line.strip()]
        return normalised(lines[-1]) if lines else None
    found = list(re.finditer(pattern, text))
    if not found:
        return None
    return normalised(found[-1][1] if found[-1].re.groups else found[-1][0])


_PUNCTUATION = " ,;:!?\"'`*_$()[]{}\u3002\u300c\u300d"
_BEFORE = re.compile(rf"(?:[{re.escape(_PUNCTUATION)}]|\.{{2,}}|\.(?!\d))+")
_NUMBER = re.compile(r"([+-]?)\$?(\d+(?:\.\d+)?|\.\d+|(?!0)(?:\d{1,3}(?:,\d{3})+|\d{1,2}(?:,\d{2})+,\d{3})(?:\.\d+)?)")


def normalised(answer: str) -> str | None:
    """An answer for comparison: lowercase, one space between words, without punctuation around it; numbers as their exact value.

    A comma is part of a number only between thousands, Indian ones (`1,00,000`) too: `1,5` and `(1,2)` stay texts.
    """
    text = " ".join(unicodedata.normalize("NFKC", answer).casefold().split()).replace("\u2212", "-")  # the minus sign
    text = text.rstrip("." + _PUNCTUATION)
    if (before := _BEFORE.match(text)) is not None:
        text = text[before.end() :]  # the point of `.5` is part of it
    if (number := _NUMBER.fullmatch(text)) is None:
        return text or None
    value = Decimal(number[1] + number[2].replace(",", ""))
    digits = f"{value:f}" if value else "0"
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


BINS = ("none", "up to a third", "up to two thirds", "more", "all")
"""Prompts by the share of their samples that were accepted, hardest first."""


def difficulty(accepted: float) -> str:
    """The bin of a prompt."""
    if accepted == 0 or accepted == 1:
        return BINS[0] if accepted == 0 else BINS[-1]
    return BINS[1] if accepted <= 1 / 3 else BINS[2] if accepted <= 2 / 3 else BINS[3]


def _share(some: Sequence[Candidate], all_of_them: Sequence[Candidate]) -> float:
    return sum(one.samples for one in some) / sum(one.samples for one in all_of_them)


def _counted(dropped: Mapping[str, int]) -> dict[str, int]:
    return {reason: count for reason, count in dropped.items() if count}
