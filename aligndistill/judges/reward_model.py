"""A reward model as a judge: any sequence classifier with one label."""

from collections.abc import Iterator, Sequence

from aligndistill.judges.protocol import Judged, Task
from aligndistill.judges.token_grades import GradeCache, GroupGrades, grade_tasks
from aligndistill.models.groups import TokenGroup
from aligndistill.models.reward import RewardModel, score_rewards


class RewardModelJudge:
    """Grades by a reward model's score.

    Args:
        pessimism: the score of an ensemble is lowered by this times the standard deviation over its members.
    """

    def __init__(
        self, name: str, reward_model: RewardModel, batch_size: int, cache: GradeCache | None = None, pessimism: float = 0.0
    ) -> None:
        self.name = name
        self._pessimism = pessimism
        self.reward_model = reward_model
        self._batch_size = batch_size
        self._cache = cache

    def judge(self, tasks: Sequence[Task]) -> Iterator[Judged]:
        """See `grade_tasks`."""
        model = self.reward_model
        return grade_tasks(self.name, model.conversation, model.max_positions, tasks, self._grade, self._cache)

    def _grade(self, groups: Sequence[TokenGroup]) -> Iterator[GroupGrades]:
        for scores in score_rewards(self.reward_model, groups, self._batch_size):
            lowered = [one - self._pessimism * apart for one, apart in zip(scores.rewards, scores.deviations, strict=True)]
            yield GroupGrades(scores.index, lowered)
