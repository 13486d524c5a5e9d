"""The rules by which a new prompt is dropped. Each is one reason, which the funnel counts."""

import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cache

from aligndistill.data.overlap import NGRAM, shingles, units
from aligndistill.data.refusals import is_refusal
from aligndistill.elicitation.texts import built_in, fixed_text

TOO_SHORT, TOO_LONG = "too short", "too long"
NO_TEXT_FIRST = "does not begin with a letter or digit"
FORBIDDEN_WORD, FORBIDDEN_START = "has a forbidden word", "begins as forbidden"
REFUSED = "is a refusal"
LEAKED = "repeats the instruction"
OTHER_SCRIPT = "is in another script"
ONLY_STOP_WORDS = "is only punctuation and stop words"
SIMILAR, DUPLICATE = "too similar to a training prompt", "is a training prompt"
UNCHANGED, EQUAL, UNREADABLE = "is the old prompt", "says the same as the old prompt", "comparison could not be read"
REFUSED_ANSWER = "its answer is a refusal"
MORE_THAN_ASKED = "more than were asked for"
CUT_OFF, NO_LIST, NO_REPLY = "cut off", "reply without a list", "no reply"

LEAKING = ("given prompt", "rewritten prompt", "created prompt")
"""Evol-Instruct's words for the texts in its own instruction."""

SHORT_ANSWER = 80
"""An answer with the word sorry and fewer words than this is a refusal (arXiv:2304.12244, section 2.3)."""

OPENING = "\u00bf\u00a1"
"""What a sentence of some languages begins with."""


@dataclass(frozen=True)
class TextRules:
    """Self-Instruct's rules for one text (`bootstrap_instructions.py`), for any language.

    Attributes:
        length: the fewest and the most units, both allowed.
        forbidden: words, or several in a row.
        forbidden_start: beginnings.
    """

    length: tuple[int, int]
    forbidden: tuple[str, ...] = ()
    forbidden_start: tuple[str, ...] = ()

    def broken(self, text: str) -> str | None:
        """The first rule that a text breaks; None if it keeps all."""
        length = len(units(text))
        if length < self.length[0]:
            return TOO_SHORT
        if length > self.length[1]:
            return TOO_LONG
        if not (text[0].isalnum() or text[0] in OPENING):
            return NO_TEXT_FIRST
        if is_refusal(text):
            return REFUSED
        if any(text.lower().startswith(start.lower()) for start in self.forbidden_start):
            return FORBIDDEN_START
        if has_any(text, self.forbidden):
            return FORBIDDEN_WORD
        return None


def has_any(text: str, phrases: Iterable[str]) -> bool:
    """Whether a text has one of these words, or runs of words, as whole words."""
    split = units(text)
    for phrase in phrases:
        wanted = units(phrase)
        if any(split[start : start + len(wanted)] == wanted for start in range(len(split) - len(wanted) + 1)):
            return True
    return False


def leaks(text: str, instruction: str) -> bool:
    """Whether a text has Evol-Instruct's words, or eight words in a row of the instruction."""
    if any(words in text.lower() for words in LEAKING):
        return True
    split, fixed = units(text), units(fixed_text(instruction))
    return len(split) >= NGRAM and not shingles(split, NGRAM).isdisjoint(shingles(fixed, NGRAM))


def says_nothing(text: str) -> bool:
    """Whether a text is only punctuation and English stop words."""
    return all(unit in stop_words() or not any(character.isalnum() for character in unit) for unit in units(text))


@cache
def stop_words() -> frozenset[str]:
    """English words that say nothing alone."""
    return frozenset(built_in("stop_words").split())


def is_short_refusal(answer: str) -> bool:
    """Whether an answer is short and has the word sorry, or begins as answers in other languages that decline."""
    return len(units(answer)) < SHORT_ANSWER and ("sorry" in units(answer) or is_refusal(answer))


def says_equal(judgement: str) -> bool | None:
    """Whether a judgement says that two prompts are equal; None if it says neither."""
    words = " ".join(units(judgement.replace("_", " ").replace("-", " ")))
    if "not equal" in words or "unequal" in words:
        return False
    return True if "equal" in words.split() else None


def script(text: str) -> str | None:
    """The script of most letters of a text, such as `LATIN`; None without letters. Chinese and Japanese are one."""
    counted = Counter(_script(letter) for letter in text if letter.isalpha())
    return counted.most_common(1)[0][0] if counted else None


def in_another_script(text: str, others: Collection[str]) -> bool:
    """Whether the letters of a text are of a script that none of the others has."""
    own, known = script(text), {found for other in others if (found := script(other))}
    return own is not None and bool(known) and own not in known


@cache
def _script(letter: str) -> str:
    name = unicodedata.name(letter, "UNKNOWN").split(" ")[0]
    return "CJK" if name in ("CJK", "HIRAGANA", "KATAKANA", "FULLWIDTH", "HALFWIDTH") else name
