"""A reward model as the judge: any sequence classifier with one label."""

from collections.abc import Iterator, Sequence

from aligndistill.judges.protocol import Judged, Task
from aligndistill.models.reward import RewardModel, score_rewards
from aligndistill.models.tokenise import Exchange, Limits, tokenise
from aligndistill.records import Grade, Usage


class RewardModelJudge:
    """Grades by a reward model's score."""

    def __init__(self, name: str, reward_model: RewardModel, batch_size: int) -> None:
        self.name = name
        self._reward_model = reward_model
        self._batch_size = batch_size

    def judge(self, tasks: Sequence[Task]) -> Iterator[Judged]:
        """A task whose prompt exceeds the model's positions gets grades without a value."""
        positions = getattr(self._reward_model.model.config, "max_position_embeddings", None)
        unlimited = 2**31 if positions is None else positions
        exchanges = [
            Exchange(task.messages, [c.text for c in task.candidates], [c.finish for c in task.candidates]) for task in tasks
        ]
        tokenised = tokenise(self._reward_model.conversation, exchanges, Limits(unlimited, unlimited, positions))
        for index in set(range(len(tasks))) - set(tokenised.indices):
            yield self._judged(tasks[index], [None] * len(tasks[index].candidates))
        for scores in score_rewards(self._reward_model, tokenised.groups, self._batch_size):
            yield self._judged(tasks[tokenised.indices[scores.index]], scores.rewards)

    def _judged(self, task: Task, values: Sequence[float | None]) -> Judged:
        return Judged(
            task.prompt_id,
            tuple(
                Grade(prompt_id=task.prompt_id, candidate=candidate.id, value=value, judge=self.name, usage=Usage(calls=1))
                for candidate, value in zip(task.candidates, values, strict=True)
            ),
        )
