"""A chat model that sends no requests: it counts them, and gives placeholder answers."""

from collections.abc import Iterator, Sequence

from aligndistill.chat.http.token_counts import TokenCount
from aligndistill.chat.protocol import Answered, LabelLogprobs, Reply, Request, SamplingParams
from aligndistill.records import Message, Usage

NOT_ASKED = "planned, not asked"


class CountingChat:
    """See `ChatModel`. Answers have the maximum length. Verdicts have a `problem`, so that none is parsed and none is cached.

    Args:
        name: of the model that it replaces; placeholder answers differ by it.
        identity: of the model that it replaces, so that its cached verdicts are found.
        label_logprobs: whether the model is known to give them; a verdict is one token then.
        thought_tokens: the most tokens of thoughts before each answer.

    Attributes:
        asked: the number of requests and of tokens; answer tokens are an upper bound.
    """

    def __init__(self, name: str, identity: str, tokens: TokenCount, label_logprobs: bool, thought_tokens: int = 0) -> None:
        self.identity = identity
        self.tokens = tokens
        self._name = name
        self._label_logprobs = label_logprobs
        self._thought_tokens = thought_tokens
        self._labels_asked = False
        self.asked = Usage()

    def label_logprobs(self, conversations: Sequence[tuple[Message, ...]], labels: Sequence[str]) -> Iterator[LabelLogprobs]:
        """See `ChatModel`. Counts all requests as requests for text."""
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
                with_thoughts = tokens + self._thought_tokens
                usage = Usage(calls=1, prompt_tokens=prompt_tokens, completion_tokens=with_thoughts)
                self.asked = Usage(
                    calls=self.asked.calls + 1,
                    prompt_tokens=self.asked.prompt_tokens + prompt_tokens,
                    completion_tokens=self.asked.completion_tokens + with_thoughts,
                )
                if asks_for_verdict:
                    yield Answered(index, sample, Reply("", "stop", Usage(), NOT_ASKED))
                else:
                    yield Answered(index, sample, Reply(placeholder(f"{self._name} {index} {sample}", tokens), "stop", usage))


def placeholder(name: str, tokens: int) -> str:
    """A text of about the given number of tokens, different for every name."""
    return name + " the" * tokens
