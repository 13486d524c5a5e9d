"""A chat model that is a function of the user's."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from aligndistill.chat.protocol import Answered, LabelLogprobs, Request, SamplingParams
from aligndistill.chat.scripted import ScriptedChat
from aligndistill.config.models import FunctionModel
from aligndistill.config.plugins import load_plugin, shown
from aligndistill.errors import JudgeError
from aligndistill.records import Message, as_dicts

AnswerFunction = Callable[[list[dict[str, str]], int, int], str]
"""`(messages, sample, seed) -> text`; a message has `role` and `content`."""


class FunctionChat:
    """Answers with the function that the config names. It knows no probabilities; words count as tokens."""

    def __init__(self, config: FunctionModel) -> None:
        self.identity = config.identity
        self._name = config.function
        self._function: AnswerFunction = load_plugin(config.function)

    def answer(self, requests: Sequence[Request], sampling: SamplingParams) -> Iterator[Answered]:
        """See `ChatModel`. An answer of more than `max_new_tokens` words is cut.

        Raises:
            JudgeError: the function raised, or did not return a text.
        """
        yield from ScriptedChat(partial(self._text, sampling.seed)).answer(requests, sampling)

    def label_logprobs(self, conversations: Sequence[tuple[Message, ...]], labels: Sequence[str]) -> Iterator[LabelLogprobs]:
        """See `ChatModel`: none are known."""
        yield from ScriptedChat(partial(self._text, 0)).label_logprobs(conversations, labels)

    def _text(self, seed: int, messages: tuple[Message, ...], sample: int) -> str:
        where = f"the model function {self._name}, on the turn {shown(messages[-1].content)},"
        try:
            text = self._function(as_dicts(messages), sample, seed)
        except Exception as error:
            raise JudgeError(f"{where} raised {type(error).__name__}: {error}") from error
        if not isinstance(text, str):
            raise JudgeError(f"{where} returned {shown(text)}. It must return a text.")
        return text
