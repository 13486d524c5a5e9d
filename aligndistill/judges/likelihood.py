"""The teacher's own probabilities as its verdict: no prompt template, no generation, no parsing.

A response's grade is its mean log-probability per token under the teacher, nats, its end token included. Dividing by the length
takes away the bias of the sum towards short answers (as in RRHF, eq. 1, Yuan et al. 2023).
"""

from collections.abc import Iterator, Sequence

from aligndistill.judges.protocol import Judged, Task
from aligndistill.judges.token_grades import GradeCache, GroupGrades, grade_tasks
from aligndistill.models.groups import TokenGroup
from aligndistill.models.load import LanguageModel
from aligndistill.models.scoring import score_groups


class LikelihoodJudge:
    """Grades by a local language model's length-normalised log-probability."""

    def __init__(self, name: str, teacher: LanguageModel, batch_size: int, kept: GradeCache | None = None) -> None:
        self.name = name
        self._teacher = teacher
        self._batch_size = batch_size
        self._kept = kept

    def judge(self, tasks: Sequence[Task]) -> Iterator[Judged]:
        """See `grade_tasks`."""
        return grade_tasks(self.name, self._teacher.conversation, self._teacher.max_positions, tasks, self._grade, self._kept)

    def _grade(self, groups: Sequence[TokenGroup]) -> Iterator[GroupGrades]:
        for scores in score_groups(self._teacher, groups, self._batch_size):
            yield GroupGrades(scores.index, [one.logprob_nats / one.length_tokens for one in scores.responses])
