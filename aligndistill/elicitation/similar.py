"""Texts seen so far, searched by ROUGE-L without comparing each pair; and the held-out prompts, which no new prompt may repeat."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from math import floor
from typing import NamedTuple

from aligndistill.data.overlap import EvaluationIndex, Units, nearest_by_rouge_l, units
from aligndistill.records import Prompt

LEAST_CONTAINED = 4
"""A held-out text of fewer units is only dropped if it is the whole prompt: shorter ones are in many texts ("How are you?")."""

HELD_OUT = "repeats a held-out prompt"
NEAR_HELD_OUT = "too similar to a held-out prompt"


class SimilarTexts:
    """The texts seen so far: finds the nearest one, exactly, if it is nearer than a limit.

    ROUGE-L above t needs more than t n / (2 - t) of the text's n units in common, so one of its rarest units must be among them;
    only texts with one of those are compared.

    Args:
        limit: of ROUGE-L, in (0, 1]; with 1 nothing is similar.
    """

    def __init__(self, limit: float, texts: Iterable[tuple[str, str]] = ()) -> None:
        self.limit = limit
        self._texts: list[tuple[str, Units]] = []
        self._unit_sets: list[frozenset[str]] = []
        self._with_unit: defaultdict[str, list[int]] = defaultdict(list)
        for identity, text in texts:
            self.add(identity, text)

    def add(self, identity: str, text: str) -> None:
        """Add a text under an id."""
        split = units(text)
        for unit in dict.fromkeys(split):
            self._with_unit[unit].append(len(self._texts))
        self._texts.append((identity, split))
        self._unit_sets.append(frozenset(split))

    def nearest(self, text: str) -> tuple[str | None, float]:
        """The id of the nearest text and its ROUGE-L; (None, 0.0) if none is above the limit. Of equally near ones the first."""
        split = units(text)
        counted, length = Counter(split), len(split)
        least_common = floor(self.limit * length / (2 - self.limit)) + 1
        rarest = sorted(split, key=lambda unit: (len(self._with_unit.get(unit, ())), unit))[: length - least_common + 1]
        places = sorted({place for unit in set(rarest) for place in self._with_unit.get(unit, ())})
        possible = [self._texts[place] for place in places if self._may_be_similar(counted, length, place)]
        nearest, score = nearest_by_rouge_l(split, possible)
        return (nearest, score) if score > self.limit else (None, 0.0)

    def _may_be_similar(self, counted: Counter[str], length: int, place: int) -> bool:
        """Whether ROUGE-L may be above the limit, by the lengths and by the units that both have, in any order."""
        other = len(self._texts[place][1])
        needed = self.limit * (length + other) / 2
        if min(length, other) <= needed:
            return False
        return sum(counted[unit] for unit in counted.keys() & self._unit_sets[place]) > needed


class HeldOutMatch(NamedTuple):
    """Why a text must not be trained on: the reason, the id of the held-out prompt, and the share or similarity."""

    reason: str
    prompt: str
    score: float


class HeldOutPrompts:
    """The user turns of the held-out prompts: whether a text is one of them, contains most of one, or is nearly one.

    Contained: runs of 8 units cover more than half of it, or, if it is shorter, the text has all of it in one run.

    Args:
        prompts: any prompts; those of the training split are left out.
        limit: of ROUGE-L.
    """

    def __init__(self, prompts: Iterable[Prompt], limit: float) -> None:
        texts = [(one.id, text) for one in prompts if one.split == "held_out" for text in user_turns(one)]
        self._contained = EvaluationIndex(texts)
        self._similar = SimilarTexts(limit, texts)
        self._short: dict[Units, str] = {}
        for identity, text in texts:
            self._short.setdefault(units(text), identity)
        self._short_sizes = sorted({len(one) for one in self._short if LEAST_CONTAINED <= len(one) < 8})

    def match(self, text: str) -> HeldOutMatch | None:
        """What the text repeats; None if it is nothing of the held-out prompts."""
        split = units(text)
        found, share = self._contained.contained(split)
        if found is not None:
            return HeldOutMatch(HELD_OUT, found, share)
        for size in self._short_sizes:
            for start in range(len(split) - size + 1):
                if (run := split[start : start + size]) in self._short:
                    return HeldOutMatch(HELD_OUT, self._short[run], 1.0)
        nearest, score = self._similar.nearest(text)
        return HeldOutMatch(NEAR_HELD_OUT, nearest, score) if nearest is not None else None


def user_turns(prompt: Prompt) -> list[str]:
    """The texts of the user's turns."""
    return [message.content for message in prompt.messages if message.role == "user"]
