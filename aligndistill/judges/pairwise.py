"""Which of two answers is better, by a chat model."""

import itertools
import math
from collections.abc import Iterator, Sequence

from aligndistill.chat.protocol import ChatModel
from aligndistill.judges.asking import Asking, Opinion, Question, by_task
from aligndistill.judges.parsing import parse_preference
from aligndistill.judges.protocol import Judged, Task
from aligndistill.judges.templates import Template
from aligndistill.records import Candidate, Comparison, Outcome, content_hash, plain_prompt
from aligndistill.store.cache import Cache

PROBABILITY_FIRST: dict[Outcome, float | None] = {"first": 1.0, "tie": 0.5, "second": 0.0, "unparsed": None}


class PairwiseJudge:
    """Compares every two candidates of a task, or the pairs that it names.

    The verdict is read off the log-probabilities of `A` and `B` where the model gives them, else off its reply.

    Args:
        both_orders: ask each pair in both orders, which cancels a preference for a place. Otherwise a hash decides the order.
        max_new_tokens: the longest reply in text.
        cache: where answers are kept between runs.
    """

    def __init__(
        self,
        name: str,
        chat: ChatModel,
        template: Template,
        both_orders: bool = True,
        max_new_tokens: int = 64,
        cache: Cache | None = None,
        seed: int = 0,
    ) -> None:
        self.name = name
        self._both_orders = both_orders
        self._asking = Asking(
            judge="pairwise",
            chat=chat,
            template=template,
            labels=("A", "B"),
            max_new_tokens=max_new_tokens,
            seed=seed,
            readable=lambda reply: parse_preference(reply) != "unparsed",
            cache=cache,
        )

    def judge(self, tasks: Sequence[Task]) -> Iterator[Judged]:
        """See `Judge`. All comparisons of all tasks are asked at once; a task of fewer than two candidates has none."""
        questions = [
            self._question(index, task, first, second) for index, task in enumerate(tasks) for first, second in self._orders(task)
        ]
        verdicts = (
            (question, self._comparison(tasks[question.task], question, opinion))
            for question, opinion in self._asking.ask(questions)
        )
        yield from by_task(tasks, questions, verdicts)

    def _orders(self, task: Task) -> Iterator[tuple[Candidate, Candidate]]:
        wanted = itertools.combinations(range(len(task.candidates)), 2) if task.pairs is None else task.pairs
        for one, other in ((task.candidates[i], task.candidates[j]) for i, j in wanted):
            if self._both_orders:
                yield from ((one, other), (other, one))
            elif content_hash(one.id, other.id) < content_hash(other.id, one.id):
                yield one, other
            else:
                yield other, one

    def _question(self, index: int, task: Task, first: Candidate, second: Candidate) -> Question:
        text = self._asking.template.fill(prompt=plain_prompt(task.messages), first=first.text, second=second.text)
        return Question(index, (first.id, second.id), text)

    def _comparison(self, task: Task, question: Question, opinion: Opinion) -> Comparison:
        first, second = question.candidates
        probability, outcome = _verdict(opinion)
        return Comparison(
            prompt_id=task.prompt_id,
            first=first,
            second=second,
            probability_first=probability,
            outcome=outcome,
            judge=self.name,
            reply=opinion.reply,
            usage=opinion.usage,
        )


def _verdict(opinion: Opinion) -> tuple[float | None, Outcome]:
    if opinion.label_logprobs is None:
        outcome = parse_preference(opinion.reply or "")
        return PROBABILITY_FIRST[outcome], outcome
    first, second = opinion.label_logprobs
    probability = (1.0 + math.tanh((first - second) / 2)) / 2  # softmax of the two, without overflow
    return probability, "first" if probability > 0.5 else "second" if probability < 0.5 else "tie"
