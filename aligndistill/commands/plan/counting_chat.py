"""A chat model that answers nothing and counts what it would have been asked."""

from collections.abc import Iterator, Sequence

from aligndistill.chat.http.token_counts import TokenCount
from aligndistill.chat.protocol import Answered, LabelLogprobs, Reply, Request, Sampling
from aligndistill.records import Message, Usage

NOT_ASKED = "planned, not asked"


class PlanningChat:
    """See `ChatModel`. Its replies have a `problem`, so that nothing is read in them and none is kept.

    Args:
        identity: of the model that it stands for, so that what was kept of that one is found.
        label_logprobs: whether the model is known to give them: an answer is one token then.

    Attributes:
        asked: requests, and tokens: those of the answers are at most so many.
    """

    def __init__(self, identity: str, tokens: TokenCount, label_logprobs: bool) -> None:
        self.identity = identity
        self.tokens = tokens
        self._label_logprobs = label_logprobs
        self._labels_asked = False
        self.asked = Usage()

    def label_logprobs(self, conversations: Sequence[tuple[Message, ...]], labels: Sequence[str]) -> Iterator[LabelLogprobs]:
        """See `ChatModel`. All are counted when they are asked for text."""
        self._labels_asked = True
        for index in range(len(conversations)):
            yield LabelLogprobs(index, None, Usage())

    def answer(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Answered]:
        """See `ChatModel`."""
        longest = 1 if self._label_logprobs and self._labels_asked else sampling.max_new_tokens
        for index, request in enumerate(requests):
            prompt_tokens = self.tokens.count(request.messages)
            for sample in request.samples:
                self.asked = Usage(
                    calls=self.asked.calls + 1,
                    prompt_tokens=self.asked.prompt_tokens + prompt_tokens,
                    completion_tokens=self.asked.completion_tokens + longest,
                )
                yield Answered(index, sample, Reply("", "stop", Usage(), NOT_ASKED))
