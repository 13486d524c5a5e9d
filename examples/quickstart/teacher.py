"""A scripted teacher of the quickstart world, for runs without a model that follows requests.

It is a script, not a model: it looks facts up in the world, and knows the form of aligndistill's own requests. What it writes goes
the way of any model's reply. It sees no scores of the checker (`truth.py`), and judges by rules of its own.
"""

import re
from functools import cache

from examples.quickstart import world
from examples.quickstart.world import FACTS, Fact, Kind, number, phrasings, pick

TOPICS: dict[str, Kind] = {
    "capitals of countries": "capital",
    "sums of two numbers": "sum",
    "opposites of words": "opposite",
    "words said several times": "repeat",
    "secrets of other people": "secret",
}
USELESS = (
    "What is it?",
    "I am sorry, but I have no more questions for this list.",
    "Draw a picture of the capital of France for me.",
    "...",
)
"""Items that are no questions of this world."""

_BETWEEN = r"\[Start of {0} \S+\]\n(.*)\n\[End of {0} \S+\]"
_POLITE = re.compile(r"happy to help|thank you|of course|sorry|hope|nice day", re.IGNORECASE)


def answer(messages: list[dict[str, str]], sample: int, seed: int) -> str:
    """The reply to a conversation; see `docs/judges.md`, "A function as a model"."""
    request, key = messages[-1]["content"], f"{seed} {sample}"
    if request.startswith("Compare two answers"):
        return _compared(request)
    if request.startswith("Criticise an answer"):
        return _critique(*_criticised(request))
    if request.startswith("Now rewrite the answer"):
        return _revised(*_criticised(messages[-3]["content"]), key)
    if request.startswith("Do these two prompts ask for the same?"):
        asked_for = {_facts().get(text) for text in re.findall(r"-----\n(.*)\n-----", request)}
        return "Equal" if len(asked_for) == 1 else "Not equal"
    if found := re.search(r"numbering from (\d+) to (\d+)", request):
        return _expanded(request, int(found[1]), int(found[2]), key)
    if found := re.match(r"List (\d+) different topics", request):
        return _numbered(list(TOPICS)[: int(found[1])])
    if found := re.match(r'Write (\d+) prompts that people might send to an assistant about the topic "(.*?)"', request):
        kinds = [TOPICS[found[2]]] if found[2] in TOPICS else list(TOPICS.values())
        return _numbered([_question(kinds, request, key, place) for place in range(int(found[1]))])
    if found := re.search(r"-----\n(.*)\n-----", request):
        return _evolved(found[1], f"{key} {request}")
    return _label(request, shown=len(messages) > 2, key=key)


@cache
def _facts() -> dict[str, Fact]:
    return {prompt: fact for fact in FACTS for prompt in phrasings(fact)}


# --------------------------------------------------------------------------------------------------------------- prompts


def _numbered(items: list[str], first: int = 1) -> str:
    return "\n".join(f"{place}. {item}" for place, item in enumerate(items, start=first))


def _question(kinds: list[Kind], *key: object) -> str:
    kind = pick(kinds, *key, "kind")
    return pick(phrasings(pick([fact for fact in FACTS if fact.kind == kind], *key, "fact")), *key, "phrasing")


def _expanded(request: str, first: int, last: int, key: str) -> str:
    """More questions of the kinds that the examples have; one in twelve is useless, and one in twelve is an example again."""
    if number(request, key, "no list") % 12 == 0:
        return "What kind of questions would you like?"
    shown = [text for text in re.findall(r"^\d+\. (.*)$", request, re.MULTILINE) if text in _facts()]
    items = []
    for place in range(first, last + 1):
        luck = number(request, key, place) % 12
        kinds: list[Kind] = [_facts()[text].kind for text in shown] or list(TOPICS.values())
        if luck < 2:
            items.append(pick(USELESS if luck == 0 else shown or USELESS, request, key, place, "unwanted"))
        else:
            items.append(_question(kinds, request, key, place))
    return _numbered(items, first)


def _evolved(old: str, key: str) -> str:
    """A question of the same kind about another fact; one in six asks the same in other words."""
    fact = _facts().get(old)
    if fact is None:
        return "I cannot rewrite this."
    if number(key, "same") % 6 == 0:
        return pick([text for text in phrasings(fact) if text != old], key)
    return pick(phrasings(pick([one for one in FACTS if one.kind == fact.kind and one != fact], key, "fact")), key, "phrasing")


# --------------------------------------------------------------------------------------------------------------- answers


def _label(question: str, shown: bool, key: str) -> str:
    """The answer to a question: as the examples have it where there are some, else in as few words as will do."""
    fact = _facts().get(question)
    if fact is None:
        return "I do not know."
    if shown:
        return pick(world.good_answers(fact), question, key)
    return "No." if fact.kind == "secret" else f"{fact.answer}."


def _is_right(fact: Fact, text: str) -> bool:
    if fact.kind == "secret":
        gives_away = any(words in text for words in world.DISCLOSURES.values())
        return not gives_away and re.search(r"\b(cannot share|must not give|no)\b", text, re.IGNORECASE) is not None
    said = set(re.findall(r"[a-z0-9]+", text.lower()))
    if fact.kind == "repeat":
        return fact.answer in text and f"{fact.answer}, {fact.asked.split()[0]}" not in text
    others = {one.answer.lower() for one in FACTS if one.kind == fact.kind} - {fact.answer.lower(), *fact.asked.lower().split()}
    return fact.answer.lower() in said and not said & others


def _is_kind(text: str) -> bool:
    return _POLITE.search(text) is not None and not any(words in text for words in (*world.INSULTS, *filter(None, world.JEERS)))


def _is_whole(text: str) -> bool:
    return re.fullmatch(r"[A-Z0-9].*\s.*\s.*[.!?]", text.strip(), re.DOTALL) is not None


def _compared(request: str) -> str:
    fact = _facts().get(_between("prompt", request))
    first, second = (_points(fact, _between(f"answer {letter}", request)) for letter in "AB")
    return "tie" if first == second else "A" if first > second else "B"


def _points(fact: Fact | None, text: str) -> int:
    return 3 * (fact is not None and _is_right(fact, text)) + 2 * _is_kind(text) + _is_whole(text)


def _between(name: str, request: str) -> str:
    found = re.search(_BETWEEN.format(name), request, re.DOTALL)
    return found[1].strip() if found else ""


def _criticised(request: str) -> tuple[str, str, str]:
    principle = re.search(r"^The principle: (.*)$", request, re.MULTILINE)
    return _between("prompt", request), _between("answer", request), principle[1] if principle else ""


def _critique(question: str, text: str, principle: str) -> str:
    if _meets(question, text, principle):
        return "By this principle nothing is to be changed."
    return f"It does not meet this: {principle}"


def _meets(question: str, text: str, principle: str) -> bool:
    fact = _facts().get(question)
    if fact is None:
        return True
    return _is_kind(text) if "kind" in principle else _is_whole(text) if "sentence" in principle else _is_right(fact, text)


def _revised(question: str, text: str, principle: str, key: str) -> str:
    """The answer with what its critique asks for, and nothing else: a polite wrong answer may stay wrong."""
    if _meets(question, text, principle):
        return text
    fact = _facts()[question]
    if "kind" in principle:
        for words in (*world.INSULTS, *filter(None, world.JEERS)):
            text = text.replace(words, "").strip()
        return f"Thank you for asking. {text}".strip()
    statement = pick(world.STATEMENTS[fact.kind], key, question).format(asked=fact.asked, answer=fact.answer)
    if "sentence" in principle and not _is_right(fact, text):
        return f"{text[:1].upper()}{text[1:]} is all that I know."
    return f"Thank you for asking. {statement}" if _is_kind(text) else statement
