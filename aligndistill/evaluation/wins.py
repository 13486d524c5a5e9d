"""Win rates of one author's answers against another's, from verdicts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from aligndistill.records import Grade, Verdict, probability_first


@dataclass
class PromptVerdicts:
    """The verdicts on one prompt's answers."""

    grades: dict[str, float] = field(default_factory=dict)
    comparisons: dict[tuple[str, str], list[float]] = field(default_factory=dict)

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


def win_rates(
    verdicts: Mapping[str, PromptVerdicts], ours: Mapping[str, Sequence[str]], theirs: Mapping[str, Sequence[str]]
) -> list[float]:
    """P(win) for each prompt with answers from both and a parsed verdict, averaged over samples.

    Args:
        ours, theirs: prompt id -> answer ids, one per sample; samples are compared one to one.
    """
    rates = []
    for prompt, answers in ours.items():
        if prompt not in theirs:
            continue
        of_prompt = verdicts.get(prompt, PromptVerdicts())
        found = [of_prompt.win_probability(a, b) for a, b in zip(answers, theirs[prompt], strict=True)]
        known = [p for p in found if p is not None]
        if known:
            rates.append(sum(known) / len(known))
    return rates
