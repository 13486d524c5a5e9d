"""The schema of rounds: the same stages again, with the student of the round before as the start."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from aligndistill.config.section import Section, name_or_section


class RoundStop(Section):
    """When no further round follows. All rules but the last are measured on the held-out prompts, the same in every round.

    Attributes:
        no_gain: the interval of the win rate of the promoted student over the round's start includes 0.5 or is below it.
        length_growth: the mean answer is more than this many times as long as the start's.
        kl_budget: the mean KL from the start exceeds this, nats per answer.
        min_pairs: the round had fewer training pairs.
    """

    no_gain: bool = True
    length_growth: float | None = Field(default=1.3, gt=1)
    kl_budget: float | None = Field(default=None, gt=0)
    min_pairs: int = Field(default=1, gt=0)

    @model_validator(mode="after")
    def _a_rule_is_left(self) -> "RoundStop":
        if not self.no_gain and self.length_growth is None and self.kl_budget is None and self.min_pairs == 1:
            raise ValueError("no rule is left that could end the rounds: keep one, or set rounds.stop to null to run all of them")
        return self


class LatestShare(Section):
    """A mixture: all training rankings of the latest round, and so many of the rounds before that the latest are this share."""

    latest: float = Field(gt=0, lt=1)


class FreshPrompts(Section):
    """So many training prompts in each round, in the order of a hash.

    Attributes:
        per_round: training prompts in each round.
        repeats: how often a prompt may be used again, in a later round, when all have been used.
    """

    per_round: int = Field(gt=0)
    repeats: int = Field(default=0, ge=0)

    def weak_prompts(self, share: float) -> int:
        """How many prompts of a round are drawn by weakness, with this share."""
        return round(share * self.per_round)

    def shortage(self, rounds: int, prompts: int, *, weak: bool = False) -> str | None:
        """Why this many training prompts are too few for this many rounds; None if they are enough.

        `weak` prompts may be used up before others: before round n, at most (n - 1) * per_round / (1 + repeats) are. So that as
        many as a round has are left in all rounds, (count + repeats) * per_round / (1 + repeats) prompts are needed.
        """
        if prompts < self.per_round:
            return f"there are {prompts} training prompts, fewer than the {self.per_round} of one round: lower per_round"
        if rounds * self.per_round > prompts * (1 + self.repeats):
            allowed = "once" if self.repeats == 0 else f"{1 + self.repeats} times"
            needed = -(-rounds * self.per_round // prompts) - 1
            text = f"{rounds} rounds of {self.per_round} prompts need more than the {prompts} training prompts, each {allowed}"
            return f"{text}: add prompts, lower per_round or count, or set repeats to {needed}"
        if weak and (rounds + self.repeats) * self.per_round > prompts * (1 + self.repeats):
            text = (
                f"{rounds} rounds of {self.per_round} prompts, of which 'weak' uses some early, may use up the {prompts} training"
            )
            return f"{text} prompts, each {1 + self.repeats} times: add prompts, lower per_round or count, or raise repeats"
        return None


RoundData = Annotated[
    Annotated[Literal["latest", "all"], Tag("name")] | Annotated[LatestShare, Tag("section")], Discriminator(name_or_section)
]
RoundPrompts = Annotated[
    Annotated[Literal["same", "fresh"], Tag("name")] | Annotated[FreshPrompts, Tag("section")], Discriminator(name_or_section)
]


class Rounds(Section):
    """Repeats candidates, verdicts, rankings and students. In every round but the first, the promoted student of the round before
    takes the place of the start: it writes candidates, and students are trained from it.

    Attributes:
        count: the largest number of rounds; `stop` may end them earlier.
        promotes: the student that the next round starts from.
        reference: the model that objectives compare the policy with: the round's own start (`previous`) or the run's (`start`).
        data: train on the rankings of the latest round, of all rounds so far, or on a mixture, `{latest: 0.7}`.
        prompts: `same` uses all training prompts in every round, `fresh` another part of them in each, of 1/`count`;
            `{per_round: 500, repeats: 1}` so many in each.
        weak: after the first round, this share of a round's prompts is drawn from those that the student was weak at in the round
            before; the others are drawn whatever it was.
        stop: when no further round follows; null runs all of them that can be learned from.
    """

    count: int = Field(gt=1)
    promotes: str
    reference: Literal["start", "previous"] = "previous"
    data: RoundData = "latest"
    prompts: RoundPrompts = "same"
    weak: float | None = Field(default=None, gt=0, le=1)
    stop: RoundStop | None = RoundStop()

    @model_validator(mode="after")
    def _weak_prompts_can_be_drawn(self) -> "Rounds":
        if self.weak is None:
            return self
        if not isinstance(self.prompts, FreshPrompts):
            raise ValueError("'weak' chooses the prompts of a round: set prompts to {per_round: 500, repeats: 1}, or remove 'weak'")
        if self.prompts.repeats == 0:
            raise ValueError("'weak' uses prompts of the round before again: set prompts.repeats to 1 or more, or remove 'weak'")
        if self.prompts.weak_prompts(self.weak) == 0:
            raise ValueError("'weak' of 'per_round' is less than one prompt: raise one of them, or remove 'weak'")
        return self


@dataclass(frozen=True)
class Round:
    """One pass from candidates to students.

    Attributes:
        name: its number.
        suffix: appended to the names of its stages; empty if it is the only round.
        roles: which model is the `start` and which the `reference`; `student` is the one promoted by the previous round.
        promotes: the student that the next round starts from.
        compared: roles that answer the held-out prompts besides the students.
        students: the students that it trains.
        part: which part of the training prompts it uses, from 0; None for all prompts.
        parts: how many parts there are, all of one size if that is set in `part_size`.
        weak: the share of its prompts that are drawn from those of the round before; None if there are none.
        data: whether its students also learn from the rankings of the rounds before.
        stop: the rules that decide after it whether another round follows; None if none can.
    """

    name: str
    suffix: str
    roles: Mapping[str, str]
    promotes: str | None
    compared: tuple[str, ...]
    students: tuple[str, ...]
    part: int | None = None
    parts: int = 1
    part_size: FreshPrompts | None = None
    weak: float | None = None
    data: Literal["latest", "all"] | LatestShare = "latest"
    stop: RoundStop | None = None

    def of(self, stage: str) -> str:
        """The name of a stage in this round."""
        return stage + self.suffix


def unrolled(rounds: Rounds, first: Round, again: Sequence[str]) -> tuple[Round, ...]:
    """All rounds.

    Args:
        first: the first one, as if it were the only one.
        again: the students that the other rounds train.
    """
    later = {"start": "student", "reference": "student" if rounds.reference == "previous" else "start"}
    sized = rounds.prompts if isinstance(rounds.prompts, FreshPrompts) else None
    first = replace(first, promotes=rounds.promotes, parts=rounds.count, part_size=sized)
    repeated = replace(first, roles=later, compared=(), students=tuple(again), data=rounds.data, weak=rounds.weak)
    made = [first, *(replace(repeated, name=str(n), suffix=f"-r{n}") for n in range(2, rounds.count + 1))]
    if rounds.prompts != "same":
        made = [replace(one, part=part) for part, one in enumerate(made)]
    return (*(replace(one, stop=rounds.stop) for one in made[:-1]), made[-1])
