"""A chat model that asks nothing: it counts what it would have been asked, and gives placeholder answers."""

from collections.abc import Iterator, Sequence

from aligndistill.chat.http.token_counts import TokenCount
from aligndistill.chat.protocol import Answered, LabelLogprobs, Reply, Request, SamplingParams
from aligndistill.records import Message, Usage

NOT_ASKED = "planned, not asked"


class CountingChat:
    """See `ChatModel`. Answers are as long as they may be. Verdicts have a `problem`, so that none is read and none is cached.

    Args:
        name: of the model that it stands for; placeholder answers differ by it.
        identity: of the model that it stands for, so that its cached verdicts are found.
        label_logprobs: whether the model is known to give them: a verdict is one token then.

    Attributes:
        asked: requests, and tokens: those of the answers are at most so many.
    """

    def __init__(self, name: str, identity: str, tokens: TokenCount, label_logprobs: bool) -> None:
        self.identity = identity
        self.tokens = tokens
        self._name = name
        self._label_logprobs = label_logprobs
        self._labels_asked = False
        self.asked = Usage()

    def label_logprobs(self, conversations: Sequence[tuple[Message, ...]], labels: Sequence[str]) -> Iterator[LabelLogprobs]:
        """See `ChatModel`. All are counted when they are asked for text."""
        self._labels_asked = True
        for index in range(len(conversations)):
            yield LabelLogprobs(index, None, Usage())

    def answer(self, requests: Sequence[Request], sampling: SamplingParams) -> Iterator[Answered]:
        """See `ChatModel`."""
        asks_for_verdict = sampling.readable is not None
        one_token = asks_for_verdict and self._label_logprobs and self._labels_asked
        tokens = 1 if one_token else sampling.max_new_tokens
        for index, request in enumerate(requests):
            prompt_tokens = self.tokens.count(request.messages)
            for sample in request.samples:
                usage = Usage(calls=1, prompt_tokens=prompt_tokens, completion_tokens=tokens)
                self.asked = Usage(
                    calls=self.asked.calls + 1,
                    prompt_tokens=self.asked.prompt_tokens + prompt_tokens,
                    completion_tokens=self.asked.completion_tokens + tokens,
                )
                if asks_for_verdict:
                    yield Answered(index, sample, Reply("", "stop", Usage(), NOT_ASKED))
                else:
                    yield Answered(index, sample, Reply(placeholder(f"{self._name} {index} {sample}", tokens), "stop", usage))


def placeholder(name: str, tokens: int) -> str:
    """A text of about so many tokens, different for every name."""
    return name + " the" * tokens
