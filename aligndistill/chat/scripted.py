"""A chat model that follows a script: for tests, and for runs that show the pipeline without any model."""

from collections.abc import Callable, Iterator, Sequence

from aligndistill.chat.protocol import Answered, LabelLogprobs, Reply, Request, SamplingParams
from aligndistill.records import Message, Usage

AnswerScript = Callable[[tuple[Message, ...], int], str]
LabelScript = Callable[[tuple[Message, ...], Sequence[str]], tuple[float, ...] | None]


class ScriptedChat:
    """Answers with `answer(messages, sample)`, and `logprobs(messages, labels)` where given. Words stand for tokens."""

    def __init__(self, answer: AnswerScript, logprobs: LabelScript | None = None, identity: str = "scripted") -> None:
        self._answer = answer
        self._logprobs = logprobs
        self.identity = identity

    def answer(self, requests: Sequence[Request], sampling: SamplingParams) -> Iterator[Answered]:
        """See `ChatModel`."""
        for index, request in enumerate(requests):
            for sample in request.samples:
                words = self._answer(request.messages, sample).split(" ")
                text = " ".join(words[: sampling.max_new_tokens])
                usage = _usage(request.messages, min(len(words), sampling.max_new_tokens))
                yield Answered(index, sample, Reply(text, "length" if len(words) > sampling.max_new_tokens else "stop", usage))

    def label_logprobs(self, conversations: Sequence[tuple[Message, ...]], labels: Sequence[str]) -> Iterator[LabelLogprobs]:
        """See `ChatModel`. Without a script for it, nothing is asked and nothing counted."""
        for index, messages in enumerate(conversations):
            if self._logprobs is None:
                yield LabelLogprobs(index, None, Usage())
            else:
                yield LabelLogprobs(index, self._logprobs(messages, labels), _usage(messages, 1))


def _usage(messages: Sequence[Message], completion_tokens: int) -> Usage:
    prompt_tokens = sum(len(message.content.split()) for message in messages)
    return Usage(calls=1, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)
