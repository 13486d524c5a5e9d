"""Questions put to a chat model, and what came back: label log-probabilities where it gives them, else text.

Everything that was paid for is kept as it arrives, before anything else is done with it.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from aligndistill.chat.protocol import ChatModel, Request, SamplingParams
from aligndistill.errors import ConfigError
from aligndistill.judges.parsing import answer_schema, verdict_text
from aligndistill.judges.protocol import Judged, Task
from aligndistill.judges.sanitising import delimiter, sanitised, truncate
from aligndistill.judges.templates import Template
from aligndistill.records import Comparison, Grade, Message, Record, Usage, total
from aligndistill.store.cache import Cache, cache_key

SAMPLING_TEMPERATURE = 1.0
"""Of several replies to one question; a single one is greedy."""


@dataclass(frozen=True)
class Question:
    """A request for a verdict: the task's index, the candidates' ids as shown, and the text that is sent."""

    task: int
    candidates: tuple[str, ...]
    text: str


class JudgeReply(Record):
    """What the model said once: log-probabilities of the labels (nats) or a text; and what it cost when it was asked."""

    label_logprobs: tuple[float, ...] | None
    reply: str | None
    usage: Usage


@dataclass(frozen=True)
class JudgeReplies:
    """All that the model said to one question: log-probabilities of the labels (nats), or one text or several."""

    label_logprobs: tuple[float, ...] | None
    replies: tuple[str, ...]
    usage: Usage

    @property
    def shown(self) -> str | None:
        """The replies as one text, as it is kept with the verdict."""
        if len(self.replies) <= 1:
            return self.replies[0] if self.replies else None
        return "\n".join(f"[reply {number}] {reply}" for number, reply in enumerate(self.replies, start=1))


@dataclass(frozen=True)
class WorkedExample:
    """A question with its answer, shown before the real one: prompt and answers in order, the verdict, and why."""

    prompt: str
    answers: tuple[str, ...]
    verdict: str
    reason: str = ""


@dataclass(frozen=True)
class JudgeOptions:
    """How a judge asks, whatever it asks.

    Attributes:
        reasoning: have reasons written before the verdict. Log-probabilities of labels are not asked for then.
        samples: replies per question where the model gives no log-probabilities; their shares make a soft verdict.
        examples: worked examples, shown as earlier turns.
        max_answer_characters: longer answers are cut, and say so.
        control_tokens: of the judge's tokenizer, as far as it is known; they are broken up where a text holds them.
    """

    reasoning: bool = False
    samples: int = 1
    examples: tuple[WorkedExample, ...] = ()
    max_answer_characters: int = 20_000
    control_tokens: frozenset[str] = frozenset()


DEFAULT_OPTIONS = JudgeOptions()


@dataclass(frozen=True)
class JudgeClient:
    """How a judge of one kind asks.

    Attributes:
        judge: the kind of judge; answers to different kinds are kept apart.
        labels: the words one of which the answer should begin with; without any, only text is asked for.
        ask_plainly, ask_with_reasons: how the verdict is asked for, in templates that have the field `{verdict}`.
        max_new_tokens: the longest reply in text.
        fill: the template filled with a prompt and answers, by `text` or `listing`.
        readable: whether a reply in text holds a verdict on so many answers. One that does not is given back, but never kept.
        cache: where answers are kept; None keeps none.

    Raises:
        ConfigError: reasons are wanted, and the template has no place to ask for them, or an example has none; or an example's
            verdict cannot be read.
    """

    judge: str
    chat: ChatModel
    template: Template
    labels: tuple[str, ...]
    ask_plainly: str
    ask_with_reasons: str
    max_new_tokens: int
    seed: int
    readable: Callable[[str, int], bool]
    cache: Cache | None
    fill: Callable[["JudgeClient", str, Sequence[str]], str]
    options: JudgeOptions = DEFAULT_OPTIONS

    def __post_init__(self) -> None:
        if self.options.reasoning and not self.template.asks_for_the_verdict:
            raise ConfigError(
                "the judge is to give reasons before its verdict, and its template asks for the verdict itself. "
                "Put the field {verdict} there instead, or set reasoning: false."
            )
        for example in self.options.examples:
            if self.options.reasoning and not example.reason:
                raise ConfigError("the judge is to give reasons, and one of its examples has none: give each example a 'reason'.")
            if not self.readable(self._example_answer(example), len(example.answers)):
                raise ConfigError(f"the verdict {example.verdict!r} of a judge's example is none that this judge could give.")

    # ------------------------------------------------------------------------------------------------------ questions

    def filled(self, prompt: str, answers: Sequence[str]) -> str:
        """The text that is sent about these answers."""
        return self.fill(self, prompt, answers)

    def text(self, **fields: str) -> str:
        """The template filled with texts of others, made harmless; its mark and its last request are the judge's own."""
        safe = {name: self._hardened(text if name == "prompt" else self._cut(text)) for name, text in fields.items()}
        return self.template.fill(mark=delimiter(self.seed, *safe.values()), verdict=self._verdict_request, **safe)

    def listing(self, texts: Sequence[str], **fields: str) -> str:
        """As `text`, for a template that shows any number of answers in one field, each between marks, by its letter."""
        safe = {name: self._hardened(text) for name, text in fields.items()}
        answers = [self._hardened(self._cut(text)) for text in texts]
        mark = delimiter(self.seed, *safe.values(), *answers)
        shown = "\n\n".join(
            f"[Start of answer {letter} {mark}]\n{answer}\n[End of answer {letter} {mark}]"
            for letter, answer in zip(LETTERS, answers, strict=False)
        )
        return self.template.fill(mark=mark, verdict=self._verdict_request, responses=shown, **safe)

    def _hardened(self, text: str) -> str:
        return sanitised(text, self.options.control_tokens)

    def _cut(self, text: str) -> str:
        """An answer cut at the stated length. A prompt is never cut: half a question is another question."""
        return truncate(text, self.options.max_answer_characters)

    @property
    def _verdict_request(self) -> str:
        return self.ask_with_reasons if self.options.reasoning else self.ask_plainly

    @cached_property
    def _examples(self) -> tuple[Message, ...]:
        turns = []
        for example in self.options.examples:
            turns += [
                Message(role="user", content=self.filled(example.prompt, example.answers)),
                Message(role="assistant", content=self._example_answer(example)),
            ]
        return tuple(turns)

    def _example_answer(self, example: WorkedExample) -> str:
        return f"{example.reason}\n[[{example.verdict}]]" if self.options.reasoning else example.verdict

    # -------------------------------------------------------------------------------------------------------- answers

    def ask(self, questions: Sequence[Question]) -> Iterator[tuple[Question, JudgeReplies]]:
        """Every question with what was said to it, in any order: those that are kept, then the others as they arrive."""
        keys = {question: self._keys(question) for question in questions}
        assert len(keys) == len(questions), "a task holds the same candidate twice"
        kept = self.cache.get_many([key for of_one in keys.values() for key in of_one]) if self.cache is not None else {}
        said: dict[Question, dict[int, JudgeReply]] = {question: {} for question in questions}
        unasked: list[Question] = []
        for question, of_one in keys.items():
            for sample, key in enumerate(of_one):
                judge_reply = _cached_reply(kept.get(key))
                if judge_reply is not None and (
                    judge_reply.reply is None or self.readable(judge_reply.reply, len(question.candidates))
                ):
                    said[question][sample] = judge_reply
            if self._complete(said[question]):
                yield question, _combined(said[question])
            else:
                unasked.append(question)

        spent: dict[Question, Usage] = {}  # on the log-probabilities that they did not get
        in_text = unasked
        if self.labels and not self.options.reasoning:
            in_text = [question for question in unasked if said[question]]  # their first samples came as text
            without = [question for question in unasked if not said[question]]
            for labelled in self.chat.label_logprobs([self._messages(question) for question in without], self.labels):
                question = without[labelled.request]
                if labelled.logprobs is None:
                    in_text.append(question)
                    spent[question] = labelled.usage
                else:
                    judge_reply = JudgeReply(label_logprobs=labelled.logprobs, reply=None, usage=labelled.usage)
                    self._keep(keys[question][0], judge_reply)
                    yield question, _combined({0: judge_reply})

        requests = [
            Request(
                self._messages(question), tuple(sample for sample in range(self.options.samples) if sample not in said[question])
            )
            for question in in_text
        ]
        temperature = SAMPLING_TEMPERATURE if self.options.samples > 1 else 0.0
        schema = None if self.options.reasoning else answer_schema(self.labels)
        sampling = SamplingParams(
            temperature,
            self.max_new_tokens,
            self.seed,
            schema,
            readable=lambda request, text: self.readable(text, len(in_text[request].candidates)),
        )
        for answered in self.chat.answer(requests, sampling):
            question, reply = in_text[answered.request], answered.reply
            text = verdict_text(reply)
            judge_reply = JudgeReply(label_logprobs=None, reply=text, usage=total(spent.pop(question, Usage()), reply.usage))
            if self.readable(text, len(question.candidates)):
                self._keep(keys[question][answered.sample], judge_reply)
            said[question][answered.sample] = judge_reply
            if self._complete(said[question]):
                yield question, _combined(said[question])

    def _complete(self, said: Mapping[int, JudgeReply]) -> bool:
        return len(said) == self.options.samples or any(judge_reply.label_logprobs is not None for judge_reply in said.values())

    def _messages(self, question: Question) -> tuple[Message, ...]:
        return (*self._examples, Message(role="user", content=question.text))

    def _keys(self, question: Question) -> list[str]:
        """One for each reply that is wanted."""
        of_question = {
            "judge": self.judge,
            "model": self.chat.identity,
            "template": self.template.text,
            "labels": self.labels,
            "max_new_tokens": self.max_new_tokens,
            "seed": self.seed,
            "messages": [message.model_dump() for message in self._messages(question)],
        }
        if self.options.samples == 1:
            return [cache_key(**of_question)]
        return [cache_key(**of_question, sample=sample, temperature=SAMPLING_TEMPERATURE) for sample in range(self.options.samples)]

    def _keep(self, key: str, judge_reply: JudgeReply) -> None:
        if self.cache is not None:
            self.cache.put(key, judge_reply.model_dump())


LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def _cached_reply(kept: Any) -> JudgeReply | None:
    """What was kept; None where nothing was, or something that is no opinion."""
    try:
        return JudgeReply.model_validate(kept)
    except ValidationError:
        return None


def _combined(said: Mapping[int, JudgeReply]) -> JudgeReplies:
    for judge_reply in said.values():
        if judge_reply.label_logprobs is not None:
            return JudgeReplies(judge_reply.label_logprobs, (), judge_reply.usage)
    in_order = [said[sample] for sample in sorted(said)]
    replies = tuple(judge_reply.reply for judge_reply in in_order if judge_reply.reply is not None)
    return JudgeReplies(None, replies, total(*(judge_reply.usage for judge_reply in in_order)))


def by_task(
    tasks: Sequence[Task], questions: Sequence[Question], verdicts: Iterable[tuple[Question, Sequence[Comparison | Grade]]]
) -> Iterator[Judged]:
    """Gather verdicts into tasks, yielding each task when it has all of them, in the order of its questions."""
    expected = Counter(question.task for question in questions)
    for task, content in enumerate(tasks):
        if not expected[task]:
            yield Judged(content.prompt_id, ())
    arrived: dict[int, dict[Question, Sequence[Comparison | Grade]]] = defaultdict(dict)
    order = {question: place for place, question in enumerate(questions)}
    for question, of_question in verdicts:
        of_task = arrived[question.task]
        of_task[question] = of_question
        if len(of_task) == expected[question.task]:
            in_order = sorted(of_task, key=order.__getitem__)
            yield Judged(tasks[question.task].prompt_id, tuple(verdict for q in in_order for verdict in of_task[q]))
            del arrived[question.task]
