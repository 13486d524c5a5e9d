"""The teacher's own probabilities as its verdict: no prompt template, no generation, no parsing.

A response's grade is its mean log-probability per token under the teacher, nats, its end token included. Dividing by the length
takes away the bias of the sum towards short answers (as in RRHF, eq. 1, Yuan et al. 2023).
"""

from collections.abc import Iterator, Sequence

from aligndistill.judges.protocol import Judged, Task
from aligndistill.models.load import LanguageModel
from aligndistill.models.scoring import score_groups
from aligndistill.models.tokenise import Exchange, Limits, tokenise
from aligndistill.records import Grade, Usage


class LikelihoodJudge:
    """Grades by a local language model's length-normalised log-probability."""

    def __init__(self, name: str, teacher: LanguageModel, batch_size: int) -> None:
        self.name = name
        self._teacher = teacher
        self._batch_size = batch_size

    def judge(self, tasks: Sequence[Task]) -> Iterator[Judged]:
        """A task whose prompt exceeds the teacher's positions gets grades without a value."""
        positions = self._teacher.max_positions
        unlimited = 2**31 if positions is None else positions
        exchanges = [
            Exchange(task.messages, [c.text for c in task.candidates], [c.finish for c in task.candidates]) for task in tasks
        ]
        tokenised = tokenise(self._teacher.conversation, exchanges, Limits(unlimited, unlimited, positions))
        for index in set(range(len(tasks))) - set(tokenised.indices):
            yield self._judged(tasks[index], [None] * len(tasks[index].candidates), 0)
        for scores in score_groups(self._teacher, tokenised.groups, self._batch_size):
            values = [response.logprob_nats / response.length_tokens for response in scores.responses]
            yield self._judged(tasks[tokenised.indices[scores.index]], values, len(tokenised.groups[scores.index].prompt))

    def _judged(self, task: Task, values: Sequence[float | None], prompt_tokens: int) -> Judged:
        return Judged(
            task.prompt_id,
            tuple(
                Grade(
                    prompt_id=task.prompt_id,
                    candidate=candidate.id,
                    value=value,
                    judge=self.name,
                    usage=Usage(calls=1, prompt_tokens=prompt_tokens),
                )
                for candidate, value in zip(task.candidates, values, strict=True)
            ),
        )
