"""People's blind votes on pairs of answers, and how far the judge agrees with them. Pure functions of votes and verdicts."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Annotated, Literal

from pydantic import Field

from aligndistill.evaluation.intervals import FloatArray, Mean, bootstrap_totals, share, wilson
from aligndistill.records import Record

Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Choice = Literal["left", "right", "tie", "both_bad", "skip", "undo"]
Queue = Literal["random", "filter", "repeat"]
VOTE_VERSION = 1
VOTES_FOR_FIVE_POINTS = 385
"""A share near one half is then known to 5 points with 95 % confidence: 1.96^2 / 4 / 0.05^2."""


class Vote(Record):
    """A line of `votes/VOTER.jsonl`: one decision between two answers.

    Attributes:
        id: of this decision; a repeated one is ignored.
        time: Unix time, seconds.
        left, right: ids of the answers: hashes of prompt and text, as in the evaluation's verdicts.
        vote: `undo` takes back the latest vote on the same pair.
        queue: `random` votes alone feed the headline; `filter` ones come from a chosen view; `repeat` shows an earlier pair
            swapped.
        milliseconds: from showing the pair to the key.
        named: an answer contains the name of a model, so that the vote may not have been blind.
    """

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    time: float
    prompt: Hex
    left: Hex
    right: Hex
    vote: Choice
    queue: Queue
    milliseconds: Annotated[int, Field(ge=0, le=86_400_000)]
    note: Annotated[str, Field(max_length=1000)] = ""
    named: bool = False
    version: int = VOTE_VERSION

    @property
    def pair(self) -> "Pair":
        """The prompt and the two answers, whatever their sides."""
        return (self.prompt, *sorted((self.left, self.right)))  # type: ignore[return-value]

    @property
    def preferred(self) -> float | None:
        """P(the answer with the lower id is better): 1, 0, or 1/2 for a tie; None without a decision."""
        sign = {"left": 1.0, "right": 0.0, "tie": 0.5, "both_bad": 0.5}.get(self.vote)
        return sign if sign is None or self.left <= self.right else 1 - sign


class VoteMetrics(Record):
    """What votes say; shares with intervals over prompts, None without data for one.

    Attributes:
        votes, headline: decisions in all, and those of the random queue whose answers name no model.
        agreement: how often the judge chooses as a person who chose; the judge's ties count half. Of the headline votes alone.
        kappa: the same beyond chance.
        longer: how often the longer answer is chosen: a baseline for `agreement`.
        filtered: the agreement on the votes from a chosen filter.
        self_agreement: how often a person decides alike when a pair returns swapped: no judge can agree more often than this.
        human_agreement: how often two people decide alike.
        left: how often the left answer is chosen.
        win_rates: model -> how often people prefer its answer to the start's; ties count half.
        by_model: model -> the judge's agreement on its pairs.
        more_votes: how many more headline votes would measure the agreement to within 5 percentage points.
    """

    votes: int
    headline: int
    agreement: Mean | None = None
    kappa: Mean | None = None
    longer: Mean | None = None
    filtered: Mean | None = None
    self_agreement: Mean | None = None
    human_agreement: Mean | None = None
    left: Mean | None = None
    win_rates: Mapping[str, Mean] = {}
    by_model: Mapping[str, Mean] = {}
    more_votes: int = VOTES_FOR_FIVE_POINTS


@dataclass(frozen=True)
class VotedAnswer:
    """An answer that people voted on: its length, and the names of the models that wrote it."""

    characters: int
    authors: Collection[str]


Pair = tuple[str, str, str]
"""A prompt and two answers to it, by their ids; the lower one first."""
Judged = Mapping[Pair, float | None]
"""Pair -> P(the first of its answers is better) by the judge."""
Answers = Mapping[tuple[str, str], VotedAnswer]
"""Prompt and answer, by their ids -> what is known of it."""
_Models = Mapping[Pair, Sequence[tuple[str, bool]]]
"""Pair -> the models that wrote it beside start and teacher, each with whether its answer is the first."""


def standing(votes: Iterable[Vote]) -> list[Vote]:
    """The votes of one person that stand: repeated ids, undone votes and the undoing itself left out, the latest of a pair kept."""
    seen: set[str] = set()
    found: dict[tuple[str, str, str, bool], Vote] = {}
    for vote in votes:
        if vote.id in seen:
            continue
        seen.add(vote.id)
        key = (*vote.pair, vote.queue == "repeat")
        found.pop(key, None)
        if vote.vote != "undo":
            found[key] = vote
    return list(found.values())


def vote_metrics(by_voter: Mapping[str, Sequence[Vote]], judged: Judged, answers: Answers) -> VoteMetrics:
    """Measure votes.

    Args:
        by_voter: the votes that stand.
        answers: those that are known; of pairs with another, no length and no model counts.
    """
    known = {
        vote.pair: (answers[vote.prompt, vote.pair[1]], answers[vote.prompt, vote.pair[2]])
        for votes in by_voter.values()
        for vote in votes
        if {(vote.prompt, vote.left), (vote.prompt, vote.right)} <= answers.keys()
    }
    models: _Models = {
        pair: [(name, one is both[0]) for one in both for name in one.authors if name not in ("start", "teacher")]
        for pair, both in known.items()
    }
    lengths = {pair: one.characters - other.characters for pair, (one, other) in known.items()}
    decided = [vote for votes in by_voter.values() for vote in votes if vote.preferred is not None]
    first = [vote for vote in decided if vote.queue != "repeat"]
    headline = [vote for vote in first if vote.queue == "random" and not vote.named]
    rows = list(_agreements(headline, judged))
    sides = [vote.vote == "left" for vote in decided if vote.vote in ("left", "right")]
    names = sorted({name for of_pair in models.values() for name, _ in of_pair})
    return VoteMetrics(
        votes=len(first),
        headline=len(headline),
        agreement=share([(prompt, same) for prompt, same, _ in rows]),
        kappa=_kappa(rows),
        longer=share(
            (vote.prompt, float((vote.preferred == 1.0) == (lengths[vote.pair] > 0)))
            for vote in headline
            if vote.preferred in (0.0, 1.0) and lengths.get(vote.pair)
        ),
        filtered=share((prompt, same) for prompt, same, _ in _agreements([v for v in first if v.queue == "filter"], judged)),
        self_agreement=share(pair for votes in by_voter.values() for pair in _repeated(votes)),
        human_agreement=share(_between_people(by_voter)),
        left=wilson(sum(sides), len(sides)) if sides else None,
        win_rates={name: rate for name in names if (rate := share(_wins(headline, models, name))) is not None},
        by_model={
            name: rate
            for name in names
            if (rate := share((p, same) for p, same, _ in _agreements(_about(headline, models, name), judged))) is not None
        },
        more_votes=max(0, VOTES_FOR_FIVE_POINTS - len(headline)),
    )


def _agreements(votes: Iterable[Vote], judged: Judged) -> Iterable[tuple[str, float, bool]]:
    """Prompt, agreement (1, 1/2, 0) and whether the judge says tie, of votes that chose a side and that the judge decided on."""
    for vote in votes:
        p = judged.get(vote.pair)
        if vote.preferred in (0.0, 1.0) and p is not None:
            judge = (p > 0.5) - (p < 0.5)
            yield vote.prompt, (1 + judge * (1 if vote.preferred == 1.0 else -1)) / 2, judge == 0


def _about(votes: Iterable[Vote], models: _Models, name: str) -> list[Vote]:
    return [vote for vote in votes if any(model == name for model, _ in models.get(vote.pair, ()))]


def _wins(votes: Iterable[Vote], models: _Models, name: str) -> Iterable[tuple[str, float]]:
    for vote in votes:
        for model, is_lower in models.get(vote.pair, ()):
            if model == name and vote.preferred is not None:
                yield vote.prompt, vote.preferred if is_lower else 1 - vote.preferred


def _repeated(votes: Sequence[Vote]) -> Iterable[tuple[str, float]]:
    before = {vote.pair: vote for vote in votes if vote.queue != "repeat" and vote.preferred is not None}
    for vote in votes:
        if vote.queue == "repeat" and vote.preferred is not None and vote.pair in before:
            yield vote.prompt, float(vote.preferred == before[vote.pair].preferred)


def _between_people(by_voter: Mapping[str, Sequence[Vote]]) -> Iterable[tuple[str, float]]:
    decided = [
        {v.pair: v.preferred for v in votes if v.queue != "repeat" and v.preferred is not None} for votes in by_voter.values()
    ]
    for one, other in combinations(decided, 2):
        for pair in one.keys() & other.keys():
            yield pair[0], float(one[pair] == other[pair])


def _kappa(rows: Sequence[tuple[str, float, bool]]) -> Mean | None:
    """As of the audit: a tie of the judge counts as disagreement; by chance, half of its decisions agree."""
    of_prompt: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for prompt, same, is_tie in rows:
        totals = of_prompt[prompt]
        totals[0] += 1
        totals[1] += same == 1.0
        totals[2] += is_tie

    def kappa(totals_RC: FloatArray) -> FloatArray:
        pairs, same, ties = totals_RC.T
        agreement, expected = same / pairs, (1 - ties / pairs) / 2
        beyond: FloatArray = (agreement - expected) / (1 - expected)
        return beyond

    return bootstrap_totals(list(of_prompt.values()), kappa) if of_prompt else None
