"""A teacher that answers each request of a step by a script, as a function of the request alone."""

import hashlib
import random
import re
from collections.abc import Callable, Sequence

from aligndistill.chat.protocol import Reply
from aligndistill.elicitation.asking import AuthorRequest
from aligndistill.records import Message, Usage

WORDS = (
    "river garden winter market engine letter bridge silver orange planet doctor village mirror candle forest music ladder window "
    "pepper shadow rocket blanket island teacher thunder violin cotton desert pencil harbour ticket saddle lemon tunnel feather"
)
ASKS = (
    "Explain to me how",
    "Write a short letter about how",
    "List three reasons why",
    "Compare the ways in which",
    "Tell a story where",
)


def prompt_about(seed: str) -> str:
    """A prompt that hardly any other seed gives."""
    chance = random.Random(hashlib.sha256(seed.encode()).hexdigest())
    return f"{chance.choice(ASKS)} the {' '.join(chance.sample(WORDS.split(), 7))} are used."


def numbered(items: Sequence[str], first: int = 1) -> str:
    return "\n".join(f"{number}. {item}" for number, item in enumerate(items, start=first))


def reply_to(request: str, sample: int = 0) -> str:
    """What the scripted teacher says to a request of any step."""
    if "Do these two prompts ask for the same?" in request:
        return "Not equal"
    if found := re.search(r"continue the\s+numbering from (\d+) to (\d+)", request):
        first, last = int(found[1]), int(found[2])
        return numbered([prompt_about(f"{request} {n} {sample}") for n in range(first, last + 1)], first)
    if found := re.search(r"List (\d+) different (?:sub)?topics", request):
        chance = random.Random(request)
        return numbered([" and ".join(chance.sample(WORDS.split(), 2)) for _ in range(int(found[1]))])
    if found := re.search(r"Write (\d+) prompts that people might send", request):
        return numbered([prompt_about(f"{request} {n} {sample}") for n in range(int(found[1]))])
    old = re.search(r"-----\n(.*)\n-----", request, re.DOTALL)
    if old is None:
        return "With great care."
    return f"{old[1]} {prompt_about(request + str(sample))}"


class ScriptedAsk:
    """Asks a script; `asked` has all questions so far.

    Args:
        script: of the text of the last turn and the sample's number; a reply, or its text.
    """

    def __init__(self, script: Callable[[str, int], str | Reply] = reply_to) -> None:
        self.asked: list[AuthorRequest] = []
        self._script = script

    def __call__(
        self, questions: Sequence[AuthorRequest], *, temperature: float, max_new_tokens: int, note: str = "", later: int = 0
    ) -> list[Reply]:
        self.asked += questions
        said = [self._script(one.messages[-1].content if one.messages else "", one.sample) for one in questions]
        return [Reply(one, "stop", Usage(calls=1)) if isinstance(one, str) else one for one in said]


def user(text: str) -> tuple[Message, ...]:
    return (Message(role="user", content=text),)
