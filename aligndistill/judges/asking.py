"""Questions put to a chat model, and what came back: label log-probabilities where it gives them, else text.

Everything that was paid for is kept as it arrives, before anything else is done with it.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from aligndistill.chat.protocol import ChatModel, Request, Sampling
from aligndistill.chat.usage import total
from aligndistill.judges.answer_form import answer_schema, verdict_text
from aligndistill.judges.protocol import Judged, Task
from aligndistill.judges.templates import Template
from aligndistill.records import Comparison, Grade, Message, Record, Usage
from aligndistill.store.cache import Cache, cache_key


@dataclass(frozen=True)
class Question:
    """A request for a verdict: the task's index, the candidates' ids as shown, and the text that is sent."""

    task: int
    candidates: tuple[str, ...]
    text: str


class Opinion(Record):
    """What the model said: either log-probabilities of the labels (nats) or a text; and what it cost when it was asked."""

    label_logprobs: tuple[float, ...] | None
    reply: str | None
    usage: Usage


@dataclass(frozen=True)
class Asking:
    """How a judge asks.

    Attributes:
        judge: the kind of judge; answers to different kinds are kept apart.
        labels: the words one of which the answer should begin with.
        max_new_tokens: the longest reply in text.
        readable: whether a reply in text holds a verdict. One that does not is given back, but never kept.
        cache: where answers are kept; None keeps none.
    """

    judge: str
    chat: ChatModel
    template: Template
    labels: tuple[str, ...]
    max_new_tokens: int
    seed: int
    readable: Callable[[str], bool]
    cache: Cache | None

    def ask(self, questions: Sequence[Question]) -> Iterator[tuple[Question, Opinion]]:
        """Every question with its opinion, in any order: those that are kept, then the others as they arrive."""
        keys = {question: self._key(question) for question in questions}
        assert len(keys) == len(questions), "a task holds the same candidate twice"
        kept = self.cache.get_many(list(keys.values())) if self.cache is not None else {}
        unasked: list[Question] = []
        for question, key in keys.items():
            opinion = _opinion(kept.get(key))
            if opinion is not None and (opinion.reply is None or self.readable(opinion.reply)):
                yield question, opinion
            else:
                unasked.append(question)

        in_text: list[Question] = []
        spent: list[Usage] = []  # on the log-probabilities that they did not get
        for labelled in self.chat.label_logprobs([_messages(question) for question in unasked], self.labels):
            question = unasked[labelled.request]
            if labelled.logprobs is None:
                in_text.append(question)
                spent.append(labelled.usage)
            else:
                opinion = Opinion(label_logprobs=labelled.logprobs, reply=None, usage=labelled.usage)
                self._keep(keys[question], opinion)
                yield question, opinion

        sampling = Sampling(0.0, self.max_new_tokens, self.seed, answer_schema(self.labels), self.readable)
        for answered in self.chat.answer([Request(_messages(question)) for question in in_text], sampling):
            question, reply = in_text[answered.request], answered.reply
            text = verdict_text(reply)
            opinion = Opinion(label_logprobs=None, reply=text, usage=total(spent[answered.request], reply.usage))
            if self.readable(text):
                self._keep(keys[question], opinion)
            yield question, opinion

    def _key(self, question: Question) -> str:
        return cache_key(
            judge=self.judge,
            model=self.chat.identity,
            template=self.template.text,
            labels=self.labels,
            max_new_tokens=self.max_new_tokens,
            seed=self.seed,
            messages=[message.model_dump() for message in _messages(question)],
        )

    def _keep(self, key: str, opinion: Opinion) -> None:
        if self.cache is not None:
            self.cache.put(key, opinion.model_dump())


def _opinion(kept: Any) -> Opinion | None:
    """What was kept; None where nothing was, or something that is no opinion."""
    try:
        return Opinion.model_validate(kept)
    except ValidationError:
        return None


def _messages(question: Question) -> tuple[Message, ...]:
    return (Message(role="user", content=question.text),)


def by_task(
    tasks: Sequence[Task], questions: Sequence[Question], verdicts: Iterable[tuple[Question, Comparison | Grade]]
) -> Iterator[Judged]:
    """Gather verdicts into tasks, yielding each task when it has all of them, in the order of its questions."""
    expected = Counter(question.task for question in questions)
    for task, content in enumerate(tasks):
        if not expected[task]:
            yield Judged(content.prompt_id, ())
    arrived: dict[int, dict[Question, Comparison | Grade]] = defaultdict(dict)
    order = {question: place for place, question in enumerate(questions)}
    for question, verdict in verdicts:
        of_task = arrived[question.task]
        of_task[question] = verdict
        if len(of_task) == expected[question.task]:
            yield Judged(tasks[question.task].prompt_id, tuple(of_task[q] for q in sorted(of_task, key=order.__getitem__)))
            del arrived[question.task]
