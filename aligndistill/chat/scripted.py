"""A chat model that follows a script, for tests and for demonstrations without a model."""

from collections.abc import Callable, Iterator, Sequence

from aligndistill.chat.protocol import Answered, LabelLogprobs, Reply, Request, SamplingParams
from aligndistill.chat.thoughts import split_thoughts
from aligndistill.records import Finish, Message, Usage

AnswerScript = Callable[[tuple[Message, ...], int], str]
LabelScript = Callable[[tuple[Message, ...], Sequence[str]], tuple[float, ...] | None]


class ScriptedChat:
    """Answers with `answer(messages, sample)` and, if given, `logprobs(messages, labels)`. Words count as tokens."""

    def __init__(self, answer: AnswerScript, logprobs: LabelScript | None = None, identity: str = "scripted") -> None:
        self._answer = answer
        self._logprobs = logprobs
        self.identity = identity

    def answer(self, requests: Sequence[Request], sampling: SamplingParams) -> Iterator[Answered]:
        """See `ChatModel`."""
        for index, request in enumerate(requests):
            for sample in request.samples:
                words = self._answer(request.messages, sample).split(" ")
                thoughts, text, _ = split_thoughts(" ".join(words[: sampling.max_new_tokens]))
                usage = _usage(request.messages, min(len(words), sampling.max_new_tokens))
                finish: Finish = "length" if len(words) > sampling.max_new_tokens else "stop"
                yield Answered(index, sample, Reply(text, finish, usage, thoughts=thoughts))

    def label_logprobs(self, conversations: Sequence[tuple[Message, ...]], labels: Sequence[str]) -> Iterator[LabelLogprobs]:
        """See `ChatModel`. Without a script, `logprobs` is None and the usage is zero."""
        for index, messages in enumerate(conversations):
            if self._logprobs is None:
                yield LabelLogprobs(index, None, Usage())
            else:
                yield LabelLogprobs(index, self._logprobs(messages, labels), _usage(messages, 1))


def _usage(messages: Sequence[Message], completion_tokens: int) -> Usage:
    prompt_tokens = sum(len(message.content.split()) for message in messages)
    return Usage(calls=1, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)
