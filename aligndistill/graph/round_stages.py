"""The stages of a round: what `pipeline.py` builds for each, and what the next round and the report read of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from aligndistill.config.students import Student
from aligndistill.store.stage import Given, Stage


@dataclass(frozen=True)
class RoundStages:
    """One pass from candidates to students.

    Attributes:
        name: the round's number.
        prompts: those of the run and those that were written for the rounds so far.
        data: what its students may read, by name: prompts, candidates, verdicts, rankings, reward model.
        settings, students: of each student, by the name that it has in this round.
        answers: to the held-out prompts: those of its students, and of the models that they are compared with.
        promoted: the student that the next round starts from; None if it starts from none.
        progress: compares the promoted student with the round's start, and points to its model.
        stop: decides whether another round follows; None if no rule can end the rounds here.
    """

    name: str
    prompts: Stage
    data: Given
    settings: Mapping[str, Student]
    students: Given
    answers: Given
    promoted: str | None = None
    progress: Stage | None = None
    stop: Stage | None = None

    @property
    def promoted_answers(self) -> Stage | None:
        """The answers of the next round's start."""
        return None if self.promoted is None else self.answers[self.promoted]


def merged(parts: Iterable[Mapping[str, Stage]]) -> Given:
    """The entries of all rounds, whose names differ."""
    return {name: one for part in parts for name, one in part.items()}
