"""Sends questions to a chat model and reads label log-probabilities if it gives them, else text.

Replies are cached as they arrive, before they are used.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from aligndistill.chat.protocol import ChatModel, Request, SamplingParams
from aligndistill.config.judges import JudgeExample
from aligndistill.errors import ConfigError
from aligndistill.judges.parsing import answer_schema, verdict_text
from aligndistill.judges.protocol import Judged, Task
from aligndistill.judges.readability import ReadabilityWatch
from aligndistill.judges.replies import LEAST_LABEL_MASS, JudgeReplies, JudgeReply, cached_reply, combined
from aligndistill.judges.sanitising import delimiter, sanitised, truncate
from aligndistill.judges.templates import Template
from aligndistill.records import Comparison, Grade, Message, Usage, total
from aligndistill.store.cache import Cache, cache_key

SAMPLING_TEMPERATURE = 1.0
"""For several replies to one question; a single reply is greedy."""


@dataclass(frozen=True)
class Question:
    """A request for a verdict: the task's index, the candidates' ids as shown, and the text that is sent."""

    task: int
    candidates: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class JudgeOptions:
    """Options of all judges that ask a chat model.

    Attributes:
        reasoning: ask for reasons before the verdict; label log-probabilities are then not used.
        samples: replies per question if the model gives no log-probabilities; their mean is a soft verdict.
        examples: shown before the question, as earlier turns.
        max_answer_characters: longer answers are truncated, with a note.
        control_tokens: of the judge's tokenizer, if known; they are broken up in texts.
        unreadable_limit: see `ReadabilityWatch`.
        read_before: how many replies with a verdict are known of this judge, which is not asked for them again.
    """

    reasoning: bool = False
    samples: int = 1
    examples: tuple[JudgeExample, ...] = ()
    max_answer_characters: int = 20_000
    control_tokens: frozenset[str] = frozenset()
    unreadable_limit: float | None = None
    read_before: int = 0


DEFAULT_OPTIONS = JudgeOptions()


@dataclass(frozen=True)
class JudgeClient:
    """Asks the questions of one kind of judge.

    Attributes:
        judge: the kind of judge; part of the cache key.
        labels: the possible first words of the answer; if empty, only text is requested.
        ask_plainly, ask_with_reasons: the request for the verdict, in templates with the field `{verdict}`.
        max_new_tokens: the longest text reply.
        fill: fills the template with a prompt and answers, using `text` or `listing`.
        readable: whether a text reply contains a verdict on this number of answers. Others are returned, but not cached.
        cache: stores replies; None disables caching.

    Raises:
        ConfigError: `reasoning` is set and the template has no field `{verdict}` or an example has no reason; or an example's
            verdict cannot be parsed.
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
                "reasoning: true needs a judge template with the field {verdict}; this one has its own request for the verdict. "
                "Replace that request by {verdict}, or set reasoning: false."
            )
        for example in self.options.examples:
            if self.options.reasoning and not example.reason:
                raise ConfigError("reasoning: true needs a reason in every example of the judge: give each example a 'reason'.")
            if not self.readable(self._example_answer(example), len(example.answers)):
                raise ConfigError(
                    f"the verdict {example.verdict!r} of a judge's example is not a valid verdict for this kind of judge."
                )

    # ------------------------------------------------------------------------------------------------------ questions

    def filled(self, prompt: str, answers: Sequence[str]) -> str:
        """The question about these answers, as sent."""
        return self.fill(self, prompt, answers)

    def text(self, **fields: str) -> str:
        """The template filled with sanitised texts, a delimiter and the request for the verdict."""
        safe = {name: self._sanitised(text if name == "prompt" else self._truncated(text)) for name, text in fields.items()}
        return self.template.fill(mark=delimiter(self.seed, *safe.values()), verdict=self._verdict_request, **safe)

    def listing(self, texts: Sequence[str], **fields: str) -> str:
        """As `text`, for a template that shows any number of answers in one field, each with its letter and between delimiters."""
        safe = {name: self._sanitised(text) for name, text in fields.items()}
        answers = [self._sanitised(self._truncated(text)) for text in texts]
        mark = delimiter(self.seed, *safe.values(), *answers)
        shown = "\n\n".join(
            f"[Start of answer {letter} {mark}]\n{answer}\n[End of answer {letter} {mark}]"
            for letter, answer in zip(LETTERS, answers, strict=False)
        )
        return self.template.fill(mark=mark, verdict=self._verdict_request, responses=shown, **safe)

    def _sanitised(self, text: str) -> str:
        return sanitised(text, self.options.control_tokens)

    def _truncated(self, text: str) -> str:
        """An answer, truncated at `max_answer_characters`. Prompts are not truncated, because a truncated prompt is a different
        prompt."""
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

    def _example_answer(self, example: JudgeExample) -> str:
        return f"{example.reason}\n[[{example.verdict}]]" if self.options.reasoning else example.verdict

    # -------------------------------------------------------------------------------------------------------- answers

    @cached_property
    def _watch(self) -> ReadabilityWatch:
        return ReadabilityWatch(self.options.unreadable_limit, self.options.read_before)

    def ask(self, questions: Sequence[Question]) -> Iterator[tuple[Question, JudgeReplies]]:
        """Every question with its replies, in any order: cached ones first, then the others as they arrive.

        Raises:
            JudgeError: too many replies cannot be read (see `ReadabilityWatch`).
        """
        keys = {question: self._keys(question) for question in questions}
        assert len(keys) == len(questions), "a task holds the same candidate twice"
        replies = self._cached(keys)
        self._watch.read += sum(map(len, replies.values()))
        unasked: list[Question] = []
        for question in keys:
            if self._complete(replies[question]):
                yield question, combined(replies[question])
            else:
                unasked.append(question)

        spent: dict[Question, Usage] = {}  # on requests for log-probabilities without a result
        in_text = unasked
        if self.labels and not self.options.reasoning:
            in_text = [question for question in unasked if replies[question]]  # their first samples were text
            without = [question for question in unasked if not replies[question]]
            for labelled in self.chat.label_logprobs([self._messages(question) for question in without], self.labels):
                question = without[labelled.request]
                judge_reply = JudgeReply(label_logprobs=labelled.logprobs, reply=None, usage=labelled.usage)
                if self._is_verdict(judge_reply, question):
                    self._save(keys[question][0], judge_reply)
                    yield question, combined({0: judge_reply})
                else:
                    in_text.append(question)
                    spent[question] = labelled.usage

        requests = [
            Request(
                self._messages(question), tuple(sample for sample in range(self.options.samples) if sample not in replies[question])
            )
            for question in in_text
        ]
        for answered in self.chat.answer(requests, self._sampling(in_text)):
            question, reply = in_text[answered.request], answered.reply
            judge_reply = JudgeReply(
                label_logprobs=None,
                reply=verdict_text(reply),
                usage=total(spent.pop(question, Usage()), reply.usage),
                thoughts=reply.thoughts,
            )
            if self._is_verdict(judge_reply, question):
                self._save(keys[question][answered.sample], judge_reply)
            else:
                self._watch.unreadable(reply)
            replies[question][answered.sample] = judge_reply
            if self._complete(replies[question]):
                yield question, combined(replies[question])

    def _cached(self, keys: Mapping[Question, Sequence[str]]) -> dict[Question, dict[int, JudgeReply]]:
        """The samples of each question that have a verdict in the cache."""
        cached = self.cache.get_many([key for of_one in keys.values() for key in of_one]) if self.cache is not None else {}
        replies: dict[Question, dict[int, JudgeReply]] = {question: {} for question in keys}
        for question, of_one in keys.items():
            for sample, key in enumerate(of_one):
                judge_reply = cached_reply(cached.get(key))
                if judge_reply is not None and self._is_verdict(judge_reply, question):
                    usage = judge_reply.usage.model_copy(update={"cached": judge_reply.usage.calls})
                    replies[question][sample] = judge_reply.model_copy(update={"usage": usage})
        return replies

    def _sampling(self, questions: Sequence[Question]) -> SamplingParams:
        return SamplingParams(
            temperature=SAMPLING_TEMPERATURE if self.options.samples > 1 else 0.0,
            max_new_tokens=self.max_new_tokens,
            seed=self.seed,
            answer_schema=None if self.options.reasoning else answer_schema(self.labels),
            readable=lambda request, text: self.readable(text, len(questions[request].candidates)),
        )

    def _is_verdict(self, judge_reply: JudgeReply, question: Question) -> bool:
        if judge_reply.label_mass is not None:
            return judge_reply.label_mass >= LEAST_LABEL_MASS
        return judge_reply.reply is not None and self.readable(judge_reply.reply, len(question.candidates))

    def _complete(self, replies: Mapping[int, JudgeReply]) -> bool:
        return len(replies) == self.options.samples or any(
            judge_reply.label_logprobs is not None for judge_reply in replies.values()
        )

    def _messages(self, question: Question) -> tuple[Message, ...]:
        return (*self._examples, Message(role="user", content=question.text))

    def _keys(self, question: Question) -> list[str]:
        """One cache key per sample."""
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

    def _save(self, key: str, judge_reply: JudgeReply) -> None:
        """Keep a reply with a verdict."""
        self._watch.readable()
        if self.cache is not None:
            self.cache.put(key, judge_reply.model_dump())


LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def by_task(
    tasks: Sequence[Task], questions: Sequence[Question], verdicts: Iterable[tuple[Question, Sequence[Comparison | Grade]]]
) -> Iterator[Judged]:
    """Group verdicts by task, yielding each task when it is complete, with its verdicts in the order of its questions."""
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
