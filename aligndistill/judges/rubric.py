"""Grades each answer by named criteria with a chat model."""

import math
from collections.abc import Iterator, Sequence
from statistics import fmean

from aligndistill.chat.protocol import ChatModel
from aligndistill.errors import ConfigError
from aligndistill.judges.parsing import last_line, parse_grade
from aligndistill.judges.protocol import Judged, Task
from aligndistill.judges.questions import DEFAULT_OPTIONS, JudgeClient, JudgeOptions, Question, by_task
from aligndistill.judges.replies import JudgeReplies
from aligndistill.judges.templates import Template
from aligndistill.records import Candidate, Grade, plain_prompt
from aligndistill.store.cache import Cache


class RubricJudge:
    """Grades every candidate separately, from `lowest` to `highest`.

    The grade is the expected value over the whole numbers of the scale if the model gives their log-probabilities (as in
    d-RLAIF, Lee et al. 2023, arXiv:2309.00267), else the mean of the grades in its replies. If an endpoint's tokenizer splits 10
    into two tokens, there are no log-probabilities when 1 or 10 is likely; a scale of single digits avoids that.

    Args:
        max_new_tokens: the longest text reply.
        cache: stores replies between runs.

    Raises:
        ConfigError: `lowest` is not less than `highest`.
    """

    def __init__(
        self,
        name: str,
        chat: ChatModel,
        template: Template,
        *,
        lowest: int = 1,
        highest: int = 10,
        max_new_tokens: int = 64,
        cache: Cache | None = None,
        seed: int = 0,
        options: JudgeOptions = DEFAULT_OPTIONS,
    ) -> None:
        if lowest >= highest:
            raise ConfigError(f"a rubric's 'lowest' ({lowest}) must be less than 'highest' ({highest}).")
        self.name = name
        self._lowest = lowest
        self._highest = highest
        self._reasoning = options.reasoning
        self._client = JudgeClient(
            judge="rubric",
            chat=chat,
            template=template,
            labels=tuple(str(grade) for grade in range(lowest, highest + 1)),
            ask_plainly=f"Answer with a single whole number from {lowest} to {highest}.",
            ask_with_reasons=(
                "First give your reasons in a few sentences. Then write the grade on a line of its own, in double brackets: "
                f"a whole number from {lowest} to {highest}, as in [[{lowest}]] or [[{highest}]]."
            ),
            max_new_tokens=max_new_tokens,
            seed=seed,
            readable=lambda reply, shown: self._read(reply) is not None,
            cache=cache,
            fill=lambda client, prompt, answers: client.text(
                prompt=prompt, response=answers[0], lowest=str(lowest), highest=str(highest)
            ),
            options=options,
        )

    def judge(self, tasks: Sequence[Task]) -> Iterator[Judged]:
        """See `Judge`. The questions of all tasks are sent together."""
        questions = [self._question(index, task, candidate) for index, task in enumerate(tasks) for candidate in task.candidates]
        verdicts = (
            (question, [self._grade(tasks[question.task], question, judge_replies)])
            for question, judge_replies in self._client.ask(questions)
        )
        yield from by_task(tasks, questions, verdicts)

    def _question(self, index: int, task: Task, candidate: Candidate) -> Question:
        return Question(index, (candidate.id,), self._client.filled(plain_prompt(task.messages), [candidate.text]))

    def _grade(self, task: Task, question: Question, judge_replies: JudgeReplies) -> Grade:
        value: float | None
        if judge_replies.label_logprobs is None:
            read = [grade for grade in map(self._read, judge_replies.replies) if grade is not None]
            value = fmean(read) if read else None
        else:
            value = _expected(range(self._lowest, self._highest + 1), judge_replies.label_logprobs)
        (candidate,) = question.candidates
        return Grade(
            prompt_id=task.prompt_id,
            candidate=candidate,
            value=value,
            judge=self.name,
            reply=judge_replies.shown,
            thoughts=judge_replies.thoughts,
            label_mass=judge_replies.label_mass,
            usage=judge_replies.usage,
        )

    def _read(self, reply: str) -> float | None:
        if self._reasoning:
            grade = parse_grade(last_line(reply), self._lowest, self._highest)
            if grade is not None:
                return grade
        return parse_grade(reply, self._lowest, self._highest)


def _expected(grades: Sequence[int], logprobs: Sequence[float]) -> float:
    top = max(logprobs)
    weights = [math.exp(logprob - top) for logprob in logprobs]
    return sum(grade * weight for grade, weight in zip(grades, weights, strict=True)) / sum(weights)
