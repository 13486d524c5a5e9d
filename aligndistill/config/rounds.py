"""The schema of rounds: the same stages again, with the student of the round before as the start."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import Field

from aligndistill.config.section import Section


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


class Rounds(Section):
    """Repeats candidates, verdicts, rankings and students. In every round but the first, the promoted student of the round before
    takes the place of the start: it writes candidates, and students are trained from it.

    Attributes:
        count: the largest number of rounds; `stop` may end them earlier.
        promotes: the student that the next round starts from.
        reference: the model that objectives compare the policy with: the round's own start (`previous`) or the run's (`start`).
        data: train on the rankings of the latest round, or of all rounds so far.
        prompts: `same` uses all training prompts in every round, `fresh` another part of them in each.
        stop: when no further round follows.
    """

    count: int = Field(gt=1)
    promotes: str
    reference: Literal["start", "previous"] = "previous"
    data: Literal["latest", "all"] = "latest"
    prompts: Literal["same", "fresh"] = "same"
    stop: RoundStop = RoundStop()


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
        part: which part of the training prompts it uses, and how many parts there are; None for all prompts.
        joins: whether its students also learn from the rankings of the rounds before.
        stop: the rules that decide after it whether another round follows; None if none can.
    """

    name: str
    suffix: str
    roles: Mapping[str, str]
    promotes: str | None
    compared: tuple[str, ...]
    students: tuple[str, ...]
    part: tuple[int, int] | None = None
    joins: bool = False
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
    repeated = replace(first, roles=later, compared=(), students=tuple(again), joins=rounds.data == "all")
    made = [first, *(replace(repeated, name=str(n), suffix=f"-r{n}") for n in range(2, rounds.count + 1))]
    parts = [(part, rounds.count) if rounds.prompts == "fresh" else None for part in range(rounds.count)]
    promoting = [replace(one, promotes=rounds.promotes, part=part) for one, part in zip(made, parts, strict=True)]
    return (*(replace(one, stop=rounds.stop) for one in promoting[:-1]), promoting[-1])
