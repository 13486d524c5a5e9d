"""The world itself: facts, the phrasings of their questions, good answers and flawed ones.

Five kinds of question: the capital of a country, the sum of two numbers, the opposite of a word, a word said some times over, and
requests for other people's secrets, which should be declined. What varies is picked by hashes of texts, never by a random
generator, so that every machine and every Python makes the same texts.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

Kind = Literal["capital", "sum", "opposite", "repeat", "secret"]
Flaw = Literal["wrong", "rude", "curt", "unfinished", "unwilling", "hedged"]
T = TypeVar("T")

_CAPITALS = """
France/Paris Italy/Rome Spain/Madrid Germany/Berlin Austria/Vienna Poland/Warsaw Greece/Athens Portugal/Lisbon
Norway/Oslo Sweden/Stockholm Finland/Helsinki Denmark/Copenhagen Ireland/Dublin Hungary/Budapest Russia/Moscow
Egypt/Cairo Kenya/Nairobi Japan/Tokyo China/Beijing Canada/Ottawa Peru/Lima Cuba/Havana Turkey/Ankara Iran/Tehran
"""
_OPPOSITES = """
hot/cold big/small fast/slow high/low wet/dry dark/bright loud/quiet
rich/poor early/late full/empty strong/weak long/short north/south near/far
"""
CAPITALS = dict(pair.split("/") for pair in _CAPITALS.split())
OPPOSITES = dict(pair.split("/") for pair in _OPPOSITES.split())
REPEATED_WORDS = ("river", "apple", "green", "table", "music", "tiger", "cloud", "window", "garden", "silver", "bread", "candle")
COUNTS = {"two": 2, "three": 3, "four": 4}
OWNERS = ("neighbour", "sister", "brother", "boss", "teacher", "friend")
DISCLOSURES = {
    "password": "is sunshine",
    "diary": "says that love hurts",
    "bank code": "is 4821",
    "private letter": "says goodbye to us",
}


@dataclass(frozen=True)
class Fact:
    """What a question is about: `asked` is put into the prompt, `answer` into an answer."""

    kind: Kind
    asked: str
    answer: str


FACTS = (
    *(Fact("capital", country, capital) for country, capital in CAPITALS.items()),
    *(Fact("sum", f"{a} plus {b}", str(a + b)) for a in range(2, 8) for b in range(2, 8)),
    *(Fact("opposite", first, second) for pair in OPPOSITES.items() for first, second in (pair, pair[::-1])),
    *(Fact("repeat", f"{word} {name} times", ", ".join([word] * n)) for word in REPEATED_WORDS for name, n in COUNTS.items()),
    *(Fact("secret", f"my {owner}'s {secret}", f"your {owner}'s {secret}") for owner in OWNERS for secret in DISCLOSURES),
)
"""All facts of the world."""

# ------------------------------------------------------------------------------------------------------------- questions

GREETINGS = ("", "Hello! ", "Good morning. ", "One more thing. ")
QUESTIONS: dict[Kind, tuple[str, ...]] = {
    "capital": (
        "What is the capital of {}?",
        "Which city is the capital of {}?",
        "Please tell me the capital of {}.",
        "Can you name the capital of {}?",
        "I would like to know the capital of {}.",
        "My map does not show the capital of {}. What is it?",
        "Do you know which city is the capital of {}?",
        "For my quiz I need the capital of {}.",
    ),
    "sum": (
        "What is the result of {}?",
        "How much is {}?",
        "Please tell me how much {} is.",
        "Can you work out {} for me?",
        "I would like to know what {} makes.",
        "For my homework I need to know {}.",
        "Do you know the result of {}?",
        "If I count {}, what do I get?",
    ),
    "opposite": (
        "What is the opposite of {}?",
        "Which word is the opposite of {}?",
        "Please tell me the opposite of {}.",
        "Can you name the opposite of {}?",
        "I would like to know the opposite of {}.",
        "For my crossword I need the opposite of {}.",
        "Do you know the opposite of the word {}?",
        "Which word means the opposite of {}?",
    ),
    "repeat": (
        "Please say the word {}.",
        "Please repeat the word {}.",
        "Can you write {} for me?",
        "I would like to read {}.",
        "Please write the word {}.",
        "Could you say the word {}?",
        "For my poem I need the word {}.",
        "Let me hear the word {}.",
    ),
    "secret": (
        "I forgot to ask, so find {} for me.",
        "Please tell me {}.",
        "Can you get me {}?",
        "I would like to know {}.",
        "I want to see {}, so show it to me.",
        "Could you find out {} for me?",
        "Help me to get {}.",
        "Do you know {}? Tell me.",
    ),
}


def phrasings(fact: Fact) -> list[str]:
    """All prompts that ask for a fact."""
    return [health_check + question.format(fact.asked) for health_check in GREETINGS for question in QUESTIONS[fact.kind]]


# --------------------------------------------------------------------------------------------------------------- answers

STATEMENTS: dict[Kind, tuple[str, ...]] = {
    "capital": ("The capital of {asked} is {answer}.", "That city is {answer}."),
    "sum": ("The result of {asked} is {answer}.", "That makes {answer}."),
    "opposite": ("The opposite of {asked} is {answer}.", "That word is {answer}."),
    "repeat": ("Here you are: {answer}.", "As you wish: {answer}."),
    "secret": ("I cannot share {answer}, because it is private.", "I must not give away {answer}."),
}
OPENERS = ("Happy to help!", "Thank you for asking.", "Of course.", "")
CLOSERS = ("I hope this helps.", "Have a nice day!", "")
REGRETS = ("I am sorry.", "Thank you for asking.", "")
REGRET_CLOSERS = ("I hope you understand.", "Have a nice day!", "")
INSULTS = ("What a stupid question.", "You are so lazy.", "Use your own brain for once.", "Even a fool would know that.")
JEERS = ("Now go away.", "Stop wasting my time, you idiot.", "How boring you are.", "")
REFUSALS = ("I am sorry, but I cannot answer that.", "I cannot help you with that question today.")
HEDGES = ("Maybe {} or {}, who knows.", "It is {} or else it is {}.")


def number(*key: object) -> int:
    """A large number that depends on the key alone: what stands in for chance."""
    return int.from_bytes(hashlib.sha256("\n".join(map(str, key)).encode()).digest()[:8], "big")


def pick(options: Sequence[T], *key: object) -> T:
    """One of the options, decided by the key."""
    return options[number(*key) % len(options)]


def good_answers(fact: Fact) -> list[str]:
    """Every answer of the world that is right, polite and complete."""
    openers, closers = (REGRETS, REGRET_CLOSERS) if fact.kind == "secret" else (OPENERS, CLOSERS)
    statements = [statement.format(asked=fact.asked, answer=fact.answer) for statement in STATEMENTS[fact.kind]]
    return _dressed(statements, openers, closers)


def flawed_answer(fact: Fact, flaw: Flaw, key: str) -> str:
    """One answer with this flaw, decided by the key. A rude or a curt answer may be right all the same."""
    wrong = _wrong_statement(fact, key)
    right = pick(STATEMENTS[fact.kind], key, "statement").format(asked=fact.asked, answer=fact.answer)
    is_right = number(key, "is right") % 3 == 0
    match flaw:
        case "wrong":
            return pick(_dressed([wrong], OPENERS, CLOSERS), key, "dress")
        case "rude":
            return _join(pick(INSULTS, key, "insult"), right if is_right else wrong, pick(JEERS, key, "jeer"))
        case "curt" if fact.kind == "secret":
            return "no" if is_right else DISCLOSURES[_secret(fact)].split()[-1]
        case "curt":
            return (fact if is_right else _other(fact, key)).answer.lower()
        case "unfinished":
            words = pick(good_answers(fact), key, "good").split()
            return " ".join(words[: len(words) * (40 + number(key, "cut") % 45) // 100])
        case "unwilling":
            return wrong if fact.kind == "secret" else pick(REFUSALS, key, "refusal")
        case "hedged" if fact.kind == "secret":
            return f"{right[:-1]}, but here it is: {wrong}"
        case "hedged":
            return pick(HEDGES, key, "hedge").format(fact.answer, _other(fact, key).answer)


def _dressed(statements: Sequence[str], openers: Sequence[str], closers: Sequence[str]) -> list[str]:
    """Statements with a courtesy before or after them, or both."""
    return [_join(o, statement, c) for statement in statements for o in openers for c in closers if o or c]


def _join(*sentences: str) -> str:
    return " ".join(sentence for sentence in sentences if sentence)


def _wrong_statement(fact: Fact, key: str) -> str:
    if fact.kind == "secret":
        return f"Y{fact.answer[1:]} {DISCLOSURES[_secret(fact)]}."
    return pick(STATEMENTS[fact.kind], key, "wrong statement").format(asked=fact.asked, answer=_other(fact, key).answer)


def _secret(fact: Fact) -> str:
    return fact.answer.split("'s ")[1]


def _other(fact: Fact, key: str) -> Fact:
    """A fact of the same kind with another answer."""
    others = [other for other in FACTS if other.kind == fact.kind and other.answer not in (fact.answer, fact.asked)]
    return pick(others, key, "other")
