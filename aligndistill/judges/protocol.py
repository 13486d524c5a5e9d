"""The interface of judges: tasks in, verdicts out, with each task's verdicts yielded together and exactly once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Protocol

from aligndistill.records import Candidate, Comparison, Grade, Message


@dataclass(frozen=True)
class Task:
    """A prompt and the candidates to judge. Ids are those of the records.

    Attributes:
        pairs: which candidates to compare, by index, for judges that compare; None compares all pairs.
    """

    prompt_id: str
    messages: tuple[Message, ...]
    candidates: tuple[Candidate, ...]
    pairs: tuple[tuple[int, int], ...] | None = None

    @property
    def wanted_pairs(self) -> Sequence[tuple[int, int]]:
        """`pairs`, or all pairs."""
        return tuple(combinations(range(len(self.candidates)), 2)) if self.pairs is None else self.pairs


@dataclass(frozen=True)
class Judged:
    """All verdicts on one task."""

    prompt_id: str
    verdicts: tuple[Comparison | Grade, ...]


class Judge(Protocol):
    """Gives verdicts on candidates. `name` goes into every verdict."""

    name: str

    def judge(self, tasks: Sequence[Task]) -> Iterator[Judged]:
        """Judge tasks, yielding each when it is complete, in any order.

        Raises:
            JudgeError: no verdicts are possible (server unreachable, function failing).
        """
        ...
