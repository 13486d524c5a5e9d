"""Ranks all answers to a prompt with one reply of a chat model."""

import itertools
from collections.abc import Iterator, Sequence
from statistics import fmean

from aligndistill.chat.protocol import ChatModel
from aligndistill.errors import JudgeError
from aligndistill.judges.parsing import last_line, parse_order
from aligndistill.judges.protocol import Judged, Task
from aligndistill.judges.questions import DEFAULT_OPTIONS, LETTERS, JudgeClient, JudgeOptions, Question, by_task
from aligndistill.judges.replies import JudgeReplies
from aligndistill.judges.templates import Template
from aligndistill.records import Candidate, Comparison, Usage, content_hash, outcome_of, plain_prompt
from aligndistill.store.cache import Cache

RankOrder = tuple[frozenset[str], ...]


class ListwiseJudge:
    """Ranks all candidates of a task at once; every two of them give a comparison, with the one listed earlier as `first`.

    P(first is better) is the share of replies that rank it higher; ties count half.

    Args:
        both_orders: ask with the list in one order and in the reverse order, so that each answer is before each other once.
            The order is chosen by a hash and is independent of the answers' quality.
        max_new_tokens: the longest reply.
        cache: stores replies between runs.
    """

    def __init__(
        self,
        name: str,
        chat: ChatModel,
        template: Template,
        *,
        both_orders: bool = True,
        max_new_tokens: int = 64,
        cache: Cache | None = None,
        seed: int = 0,
        options: JudgeOptions = DEFAULT_OPTIONS,
    ) -> None:
        self.name = name
        self._both_orders = both_orders
        self._reasoning = options.reasoning
        self._client = JudgeClient(
            judge="listwise",
            chat=chat,
            template=template,
            labels=(),
            ask_plainly="Answer with the letters alone, best first, as in B > A > C; write = between equals.",
            ask_with_reasons=(
                "First give your reasons in a few sentences. Then write the order on a line of its own, in double brackets, best "
                "first, as in [[B > A > C]]; write = between answers that are equally good."
            ),
            max_new_tokens=max_new_tokens,
            seed=seed,
            readable=lambda reply, shown: self._read(reply, shown) is not None,
            cache=cache,
            fill=lambda client, prompt, answers: client.listing(answers, prompt=prompt),
            options=options,
        )

    def judge(self, tasks: Sequence[Task]) -> Iterator[Judged]:
        """See `Judge`. The lists of all tasks are sent together; for a task with `pairs`, only the answers in them are listed.

        Raises:
            JudgeError: a task has more answers than there are letters.
        """
        questions = [question for index, task in enumerate(tasks) for question in self._questions(index, task)]
        verdicts = (
            (question, self._comparisons(tasks[question.task], question, judge_replies))
            for question, judge_replies in self._client.ask(questions)
        )
        yield from by_task(tasks, questions, verdicts)

    def _questions(self, index: int, task: Task) -> list[Question]:
        pairs = task.wanted_pairs
        listed = sorted(
            {place for pair in pairs for place in pair}, key=lambda place: content_hash("list", task.candidates[place].id)
        )
        if not listed:
            return []
        if len(listed) > len(LETTERS):
            raise JudgeError(
                f"a listwise judge shows at most {len(LETTERS)} answers, and a prompt has {len(listed)}. Use fewer candidates, or "
                "kind rubric or pairwise."
            )
        orders = [listed, listed[::-1]] if self._both_orders else [listed]
        return [self._question(index, task, [task.candidates[place] for place in order]) for order in orders]

    def _question(self, index: int, task: Task, listed: Sequence[Candidate]) -> Question:
        text = self._client.filled(plain_prompt(task.messages), [one.text for one in listed])
        return Question(index, tuple(one.id for one in listed), text)

    def _comparisons(self, task: Task, question: Question, judge_replies: JudgeReplies) -> list[Comparison]:
        """The wanted pairs, in the order of the list. The cost of the reply is counted on the first."""
        orders = [order for reply in judge_replies.replies if (order := self._read(reply, len(question.candidates))) is not None]
        wanted = {frozenset(task.candidates[place].id for place in pair) for pair in task.wanted_pairs}
        letter_of = dict(zip(question.candidates, LETTERS, strict=False))
        found: list[Comparison] = []
        for first, second in itertools.combinations(question.candidates, 2):
            if frozenset((first, second)) in wanted:
                probability = _probability(orders, letter_of[first], letter_of[second])
                found.append(
                    Comparison(
                        prompt_id=task.prompt_id,
                        first=first,
                        second=second,
                        probability_first=probability,
                        outcome=outcome_of(probability),
                        judge=self.name,
                        reply=judge_replies.shown,
                        thoughts=judge_replies.thoughts,
                        label_mass=judge_replies.label_mass,
                        usage=Usage() if found else judge_replies.usage,
                    )
                )
        return found

    def _read(self, reply: str, shown: int) -> RankOrder | None:
        letters = LETTERS[:shown]
        if self._reasoning:
            order = parse_order(last_line(reply), letters)
            if order is not None:
                return order
        return parse_order(reply, letters)


def _probability(orders: Sequence[RankOrder], first: str, second: str) -> float | None:
    def one(order: RankOrder) -> float:
        place = {letter: number for number, group in enumerate(order) for letter in group}
        return (1 + (place[first] < place[second]) - (place[first] > place[second])) / 2

    return fmean(map(one, orders)) if orders else None
