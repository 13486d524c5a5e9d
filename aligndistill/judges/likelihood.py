"""Grades from the teacher's own probabilities, without a prompt template, generation or parsing.

The grade of a response is its mean log-probability per token under the teacher, nats, including the end token. Dividing by the
length removes the bias of the sum towards short answers (as in RRHF, eq. 1, Yuan et al. 2023).
"""

from collections.abc import Iterator, Sequence

from aligndistill.judges.protocol import Judged, Task
from aligndistill.judges.token_grades import GradeCache, GroupGrades, grade_tasks
from aligndistill.models.groups import TokenGroup
from aligndistill.models.load import LanguageModel
from aligndistill.models.scoring import score_groups


class LikelihoodJudge:
    """Grades by a local language model's length-normalised log-probability."""

    def __init__(self, name: str, teacher: LanguageModel, batch_size: int, cache: GradeCache | None = None) -> None:
        self.name = name
        self._teacher = teacher
        self._batch_size = batch_size
        self._cache = cache

    def judge(self, tasks: Sequence[Task]) -> Iterator[Judged]:
        """See `grade_tasks`."""
        return grade_tasks(self.name, self._teacher.conversation, self._teacher.max_positions, tasks, self._grade, self._cache)

    def _grade(self, groups: Sequence[TokenGroup]) -> Iterator[GroupGrades]:
        for scores in score_groups(self._teacher, groups, self._batch_size):
            yield GroupGrades(scores.index, [one.logprob_nats / one.length_tokens for one in scores.responses])
