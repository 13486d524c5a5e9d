"""Win rates of one author's answers against another's, from verdicts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from aligndistill.records import Grade, Verdict, probability_first


@dataclass
class PromptVerdicts:
    """The verdicts on one prompt's answers."""

    grades: dict[str, float] = field(default_factory=dict)
    comparisons: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The pairs of answers of which a verdict was read, each by id."""
        compared = {(min(pair), max(pair)) for pair in self.comparisons}
        return sorted(compared | set(combinations(sorted(self.grades), 2)))

    def win_probability(self, answer: str, other: str) -> float | None:
        """P(answer beats other), by ids: the mean over the orders asked, or 1, 1/2, 0 by grades; None without a parsed verdict.

        1/2 for an answer against itself.
        """
        if answer == other:
            return 0.5
        if answer in self.grades and other in self.grades:
            gap = self.grades[answer] - self.grades[other]
            return 0.5 if gap == 0 else float(gap > 0)
        forwards = self.comparisons.get((answer, other), [])
        backwards = [1 - p for p in self.comparisons.get((other, answer), [])]
        asked = [*forwards, *backwards]
        return sum(asked) / len(asked) if asked else None

    def disagrees_with(self, second: "PromptVerdicts") -> bool:
        """Whether two judges prefer different answers of a pair; a tie of either is no difference."""
        both = ((self.win_probability(*pair), second.win_probability(*pair)) for pair in second.pairs)
        return any(ours is not None and theirs is not None and (ours - 0.5) * (theirs - 0.5) < 0 for ours, theirs in both)


def by_prompt(verdicts: Iterable[Verdict]) -> dict[str, PromptVerdicts]:
    """Group verdicts by prompt; unparsed ones are skipped."""
    sorted_verdicts: dict[str, PromptVerdicts] = {}
    for verdict in verdicts:
        of_prompt = sorted_verdicts.setdefault(verdict.prompt_id, PromptVerdicts())
        if isinstance(verdict, Grade):
            if verdict.value is not None:
                of_prompt.grades[verdict.candidate] = verdict.value
        elif (probability := probability_first(verdict)) is not None:
            of_prompt.comparisons.setdefault((verdict.first, verdict.second), []).append(probability)
    return sorted_verdicts


@dataclass(frozen=True)
class Compared:
    """One of our answers and one of theirs to a prompt, their place among its answers, and P(ours wins)."""

    prompt: str
    sample: int
    probability: float


def compared(
    verdicts: Mapping[str, PromptVerdicts], ours: Mapping[str, Sequence[str]], theirs: Mapping[str, Sequence[str]]
) -> list[Compared]:
    """The comparisons with a parsed verdict, of prompts with answers from both.

    Args:
        ours, theirs: prompt id -> answer ids, one per sample; samples are compared one to one, by their place.
    """
    found = []
    for prompt, answers in ours.items():
        if prompt not in theirs:
            continue
        of_prompt = verdicts.get(prompt, PromptVerdicts())
        # A server may have refused single samples, and later ones then move up: a prompt's samples are exchangeable, and the judge
        # was asked about the same pairs (`answers_task`). What is left over has no opponent.
        for sample, (a, b) in enumerate(zip(answers, theirs[prompt], strict=False)):
            if (probability := of_prompt.win_probability(a, b)) is not None:
                found.append(Compared(prompt, sample, probability))
    return found


def win_rates(comparisons: Iterable[Compared]) -> list[float]:
    """P(win) of each prompt, averaged over its samples."""
    of_prompts: dict[str, list[float]] = {}
    for one in comparisons:
        of_prompts.setdefault(one.prompt, []).append(one.probability)
    return [sum(rates) / len(rates) for rates in of_prompts.values()]
