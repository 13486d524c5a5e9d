"""A grade by named criteria for each answer, by a chat model."""

import math
from collections.abc import Iterator, Sequence

from aligndistill.chat.protocol import ChatModel
from aligndistill.errors import ConfigError
from aligndistill.judges.asking import Asking, Opinion, Question, by_task
from aligndistill.judges.parsing import parse_grade
from aligndistill.judges.protocol import Judged, Task
from aligndistill.judges.templates import Template
from aligndistill.records import Candidate, Grade, plain_prompt
from aligndistill.store.cache import Cache


class RubricJudge:
    """Grades every candidate by itself, from `lowest` to `highest`.

    The grade is the expected value over the whole numbers of the scale where the model gives their log-probabilities (as in
    d-RLAIF, Lee et al. 2023, arXiv:2309.00267), else the number in its reply. An endpoint whose tokenizer writes 10 as two
    tokens does not give them when 1 or 10 is likely; a scale of single digits avoids that.

    Raises:
        ConfigError: a scale that does not go up.
    """

    def __init__(
        self,
        name: str,
        chat: ChatModel,
        template: Template,
        lowest: int = 1,
        highest: int = 10,
        max_new_tokens: int = 64,
        cache: Cache | None = None,
        seed: int = 0,
    ) -> None:
        if lowest >= highest:
            raise ConfigError(f"a rubric's scale must go up: 'lowest' is {lowest} and 'highest' is {highest}.")
        self.name = name
        self._lowest = lowest
        self._highest = highest
        self._asking = Asking(
            judge="rubric",
            chat=chat,
            template=template,
            labels=tuple(str(grade) for grade in range(lowest, highest + 1)),
            max_new_tokens=max_new_tokens,
            seed=seed,
            readable=lambda reply: parse_grade(reply, lowest, highest) is not None,
            cache=cache,
        )

    def judge(self, tasks: Sequence[Task]) -> Iterator[Judged]:
        """See `Judge`. All candidates of all tasks are asked about at once."""
        questions = [self._question(index, task, candidate) for index, task in enumerate(tasks) for candidate in task.candidates]
        verdicts = (
            (question, self._grade(tasks[question.task], question, opinion)) for question, opinion in self._asking.ask(questions)
        )
        yield from by_task(tasks, questions, verdicts)

    def _question(self, index: int, task: Task, candidate: Candidate) -> Question:
        text = self._asking.template.fill(
            prompt=plain_prompt(task.messages),
            response=candidate.text,
            lowest=str(self._lowest),
            highest=str(self._highest),
        )
        return Question(index, (candidate.id,), text)

    def _grade(self, task: Task, question: Question, opinion: Opinion) -> Grade:
        if opinion.label_logprobs is None:
            value = parse_grade(opinion.reply or "", self._lowest, self._highest)
        else:
            value = _expected(range(self._lowest, self._highest + 1), opinion.label_logprobs)
        (candidate,) = question.candidates
        return Grade(
            prompt_id=task.prompt_id,
            candidate=candidate,
            value=value,
            judge=self.name,
            reply=opinion.reply,
            usage=opinion.usage,
        )


def _expected(grades: Sequence[int], logprobs: Sequence[float]) -> float:
    top = max(logprobs)
    weights = [math.exp(logprob - top) for logprob in logprobs]
    return sum(grade * weight for grade, weight in zip(grades, weights, strict=True)) / sum(weights)
