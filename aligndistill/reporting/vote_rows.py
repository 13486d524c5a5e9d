"""What people's blind votes say of the judge, as rows of a table and as one sentence for cards."""

from collections.abc import Iterator
from dataclasses import dataclass

from aligndistill.evaluation.intervals import Mean
from aligndistill.evaluation.votes import VoteMetrics
from aligndistill.reporting.writing import share, with_interval

VOTES_SHOWN = (
    ("agreement", "judge and person choose the same answer", "of random pairs where both chose one"),
    ("longer", "the longer answer is chosen", "agreement of always taking the longer answer"),
    ("self_agreement", "a voter repeats the choice, sides swapped", "the most that the judge can reach"),
    ("human_agreement", "two people choose the same answer", "of pairs that both voted on"),
    ("filtered", "judge and person, pairs from a filter", "not part of the other figures"),
    ("left", "the left answer is chosen", "near 50% without a side bias"),
)
"""Shares of `VoteMetrics` with what they are and what to compare them with."""


@dataclass(frozen=True)
class VoteRow:
    """A figure as text, with n and what to compare it with."""

    label: str
    text: str
    n: int
    meaning: str


def vote_rows(metrics: VoteMetrics) -> Iterator[VoteRow]:
    """A row for each figure that was measured; kappa after the agreement that it is made of."""
    for key, label, meaning in VOTES_SHOWN:
        yield from _row(label, getattr(metrics, key), meaning)
        if key == "agreement" and metrics.kappa is not None:
            kappa = metrics.kappa
            yield VoteRow("kappa of judge and person", with_interval(kappa), kappa.n, "0 by chance, 1 for full agreement")
    for model, rate in metrics.win_rates.items():
        yield from _row(f"{model}: people prefer it to the start", rate, "50%: no preference")
    for model, rate in metrics.by_model.items():
        yield from _row(f"{model}: judge and person choose the same answer", rate, "")


def _row(label: str, figure: Mean | None, meaning: str) -> Iterator[VoteRow]:
    if figure is not None:
        yield VoteRow(label, share(figure), figure.n, meaning)


def votes_sentence(metrics: VoteMetrics) -> str:
    """The headline: of the random votes alone, beside how often a person agrees with themselves and always taking the longer."""
    if metrics.agreement is None:
        return f"{metrics.headline:,} blind votes were drawn at random; none is on a pair that the judge decided."
    parts = [f"Judge and people choose the same answer in {share(metrics.agreement)} of the blind votes drawn at random"]
    parts[0] += f" ({metrics.headline:,} votes on {metrics.agreement.n:,} prompts)"
    if metrics.kappa is not None:
        parts.append(f"kappa is {with_interval(metrics.kappa)}")
    if metrics.self_agreement is not None:
        parts.append(f"a voter repeats the choice in {share(metrics.self_agreement)}")
    if metrics.longer is not None:
        parts.append(f"always taking the longer answer would agree in {share(metrics.longer)}")
    return "; ".join(parts) + "."
