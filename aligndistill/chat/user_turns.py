"""User turns that a model writes itself: it gets its chat template up to the user's text, and nothing else."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from aligndistill.chat.http.client import OpenSession, ServerClient
from aligndistill.chat.http.concurrency import run_concurrently
from aligndistill.chat.http.retries import RequestRejected, RetriesExhausted
from aligndistill.chat.protocol import Answered, Reply, Request, SamplingParams, seed_of
from aligndistill.errors import JudgeError
from aligndistill.records import Usage, content_hash

if TYPE_CHECKING:  # only a model that runs here needs torch
    from aligndistill.models.conversation import Conversation
    from aligndistill.models.load import LanguageModel

KEY = "user turn"


class LocalUserTurns:
    """User turns by a model that runs here."""

    def __init__(self, language_model: "LanguageModel", identity: str, batch_size: int) -> None:
        self.identity = identity
        self._language_model = language_model
        self._batch_size = batch_size

    def answer(self, requests: Sequence[Request], sampling: SamplingParams) -> Iterator[Answered]:
        """A user turn for each request and sample; the requests have no messages. Otherwise see `ChatModel.answer`."""
        from aligndistill.models.sampling import SampleRequest, sample

        conversation = self._language_model.conversation
        before = conversation.user_turn_ids
        wanted = [(index, number) for index, request in enumerate(requests) for number in request.samples]
        for start in range(0, len(wanted), self._batch_size):
            batch = wanted[start : start + self._batch_size]
            (sampled,) = sample(
                self._language_model,
                [SampleRequest(before, KEY, tuple(number for _, number in batch))],
                temperature=sampling.temperature,
                max_new_tokens=sampling.max_new_tokens,
                seed=sampling.seed,
            )
            for (index, number), one in zip(batch, sampled, strict=True):
                text = conversation.user_turn_text(one.ids)
                stopped = one.finish == "stop" or conversation.stops_inside(conversation.tokenizer.decode(one.ids))
                usage = Usage(calls=1, prompt_tokens=len(before), completion_tokens=len(one.ids))
                yield Answered(index, number, Reply(text, "stop" if stopped else "length", usage))


class ServedUserTurns:
    """User turns by a model on a server that continues token ids (`/v1/completions`).

    Args:
        conversation: of the server's own tokenizer.
    """

    def __init__(self, client: ServerClient, conversation: "Conversation", identity: str) -> None:
        self.identity = identity
        self._client = client
        self._conversation = conversation

    def answer(self, requests: Sequence[Request], sampling: SamplingParams) -> Iterator[Answered]:
        """See `LocalUserTurns.answer`.

        Raises:
            JudgeError: the server cannot be reached, or continues no text.
        """
        before = self._conversation.user_turn_ids
        end = self._conversation.tokenizer.decode([self._conversation.end_of_turn])
        wanted = [(index, number) for index, request in enumerate(requests) for number in request.samples]

        async def ask(session: OpenSession, one: tuple[int, int]) -> Answered:
            index, number = one
            seed = seed_of(content_hash(KEY, str(sampling.seed), str(number)))
            fields: dict[str, Any] = {"temperature": sampling.temperature, "seed": seed, "stop": [end]}
            try:
                found = await self._client.continue_ids(session, before, sampling.max_new_tokens, fields)
            except RequestRejected as refusal:
                advice = "Magpie needs a server that continues text (/v1/completions): use one, or a model that runs here."
                raise JudgeError(f"{self._client.name} rejected the request: {refusal}. {advice}") from None
            except RetriesExhausted as failure:
                await self._client.given_up(session, failure)
                return Answered(index, number, Reply("", "stop", Usage(calls=1), str(failure)))
            session.failures_in_a_row = 0
            return Answered(index, number, found.reply(len(before)))

        self._client.limit.restart()
        yield from run_concurrently(self._client.session(), ask, wanted, lambda: self._client.limit.current)
