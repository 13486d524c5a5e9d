"""Asks the models of an elicitation step: replies are cached as they arrive, so that none is asked for twice."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from aligndistill.chat.protocol import CUT_IN_THOUGHTS, NO_ANSWER, Answered, Reply, Request, SamplingParams
from aligndistill.config.models import EndpointModel
from aligndistill.elicitation.asking import AuthorRequest
from aligndistill.processes.progress import Bar, say
from aligndistill.records import Finish, Record, Usage, total
from aligndistill.stages.context import ModelSource, StageContext, thinking_tokens
from aligndistill.stages.generated import utc_now
from aligndistill.stages.opening import OpenChat, UserTurnWriter, open_chat, open_user_turns
from aligndistill.store.cache import Cache, cache_key

NO_LIMIT = 2**31


class CachedReply(Record):
    """A reply in the cache.

    Attributes:
        time: when it was received, UTC; None in caches of versions that kept no times.
        thinking_tokens: of the server's config when it was received.
    """

    text: str
    finish: Finish
    usage: Usage
    problem: str = ""
    time: str | None = None
    thinking_tokens: int = 0


class CachingAsk:
    """See `elicitation.asking.Ask`.

    Attributes:
        usage: of every reply so far by author, those from the cache included.
        cached: how many replies were in the cache.
    """

    def __init__(self, context: StageContext, models: Mapping[str, ModelSource], seed: int, running: Bar) -> None:
        self.usage: dict[str, Usage] = {}
        self.cached = 0
        self._context = context
        self._models = models
        self._seed = seed
        self._bar = running
        self._replies = 0
        self._has_asked = False
        self._cache = Cache(context.caches / "elicited.sqlite")
        self._chats: dict[str, OpenChat] = {}
        self._turns: dict[str, UserTurnWriter] = {}

    def __call__(
        self, questions: Sequence[AuthorRequest], *, temperature: float, max_new_tokens: int, note: str = "", later: int = 0
    ) -> list[Reply]:
        """See `Ask`.

        Raises:
            JudgeError: a server cannot be reached, or rejects all requests.
            BudgetError: the budget is spent.
        """
        sampling = SamplingParams(temperature, max_new_tokens, self._seed)
        self._bar.expect(self._replies + len(questions) + later)
        replies: dict[int, Reply] = {}
        for author in dict.fromkeys(question.author for question in questions):
            of_author = {number: question for number, question in enumerate(questions) if question.author == author}
            for number, reply in self._asked(author, of_author, sampling, note).items():
                replies[number] = reply
                self.usage[author] = total(self.usage.get(author, Usage()), reply.usage)
        return [replies[number] for number in range(len(questions))]

    def _asked(self, author: str, questions: Mapping[int, AuthorRequest], sampling: SamplingParams, note: str) -> dict[int, Reply]:
        """The replies of one model, by the number of the question. Of equal questions one is asked, and paid for."""
        identity = self._identity(author)
        keys = {number: _key(identity, question, sampling) for number, question in questions.items()}
        first = {key: number for number, key in reversed(keys.items())}
        thoughts = thinking_tokens(self._models[author])
        cached = self._cache.get_many(list(first)).items()
        replies = {key: reply for key, value in cached if (reply := _reply(value, thoughts)) is not None}
        self.cached += len(replies)
        self._advance(sum(key in replies for key in keys.values()), author, note)
        missing = [key for key in first if key not in replies and self._fits(author, questions[first[key]], sampling)]
        if missing and not self._has_asked and self.cached and not self._context.is_dry:
            say(f"  {self._context.name}: resuming after {self.cached} replies that are known")
        self._has_asked = self._has_asked or bool(missing)
        requests = [Request(questions[first[key]].messages, (questions[first[key]].sample,)) for key in missing]
        for answered in self._answered(author, requests, sampling):
            key, reply = missing[answered.request], replace(answered.reply, time=utc_now())
            replies[key] = reply
            if not self._context.is_dry and (not reply.problem or reply.problem.startswith((CUT_IN_THOUGHTS, NO_ANSWER))):
                stored = CachedReply(
                    text=reply.text,
                    finish=reply.finish,
                    usage=reply.usage,
                    problem=reply.problem,
                    time=reply.time,
                    thinking_tokens=thoughts,
                )
                self._cache.put(key, stored.model_dump())
            self._advance(1, author, note)
        too_long = Reply("", "stop", Usage(), "the request is too long for the model")
        found = {number: replies.get(key, too_long) for number, key in keys.items()}
        return {number: one if first[keys[number]] == number else replace(one, usage=Usage()) for number, one in found.items()}

    def _answered(self, author: str, requests: Sequence[Request], sampling: SamplingParams) -> Iterator[Answered]:
        """The answers of a model, which is opened only if something is asked."""
        if requests:
            model = self._chat(author).model if requests[0].messages else self._turn_writer(author)
            yield from model.answer(requests, sampling)

    def _identity(self, author: str) -> str:
        """The model in cache keys, as chat models name themselves."""
        model = self._models[author]
        return f"model {self._context.identities[model]}" if isinstance(model, Path) else model.identity

    def _advance(self, count: int, author: str, note: str) -> None:
        self._replies += count
        spending = self._context.spending() if self._context.spending and isinstance(self._models[author], EndpointModel) else ""
        self._bar.set(self._replies, ", ".join(part for part in (note, spending) if part))

    def _chat(self, author: str) -> OpenChat:
        if author not in self._chats:
            self._chats[author] = open_chat(self._context, self._models[author])
        return self._chats[author]

    def _turn_writer(self, author: str) -> UserTurnWriter:
        if author not in self._turns:
            self._turns[author] = open_user_turns(self._context, self._models[author])
        return self._turns[author]

    def _fits(self, author: str, question: AuthorRequest, sampling: SamplingParams) -> bool:
        return not question.messages or self._chat(author).fits(question.messages, NO_LIMIT, sampling.max_new_tokens)


def _key(model: str, question: AuthorRequest, sampling: SamplingParams) -> str:
    return cache_key(
        model=model,
        messages=[message.model_dump() for message in question.messages],
        sample=question.sample,
        temperature=sampling.temperature,
        max_new_tokens=sampling.max_new_tokens,
        seed=sampling.seed,
    )


def _reply(value: Any, thoughts: int) -> Reply | None:
    """The reply in a cache entry; None if there is no entry, not a valid one, or one that a lower limit than `thoughts` cut off
    inside its thoughts."""
    try:
        found = CachedReply.model_validate(value)
    except ValidationError:
        return None
    if found.problem.startswith(CUT_IN_THOUGHTS) and found.thinking_tokens < thoughts:
        return None
    return Reply(found.text, found.finish, found.usage, found.problem, time=found.time)
