"""Parses verdicts from a judge's replies. Ambiguous replies are `unparsed` rather than guessed."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from aligndistill.chat.protocol import UNANSWERED, Reply
from aligndistill.chat.thoughts import split_thoughts
from aligndistill.records import Comparison, Grade, Outcome

_OUTCOMES: dict[str, Outcome] = {
    **{"a": "first", "a>b": "first", "a>>b": "first", "b<a": "first", "b<<a": "first"},
    **{"b": "second", "b>a": "second", "b>>a": "second", "a<b": "second", "a<<b": "second"},
    **{"c": "tie", "tie": "tie", "draw": "tie", "a=b": "tie", "b=a": "tie"},
}
_BARE = {"a": _OUTCOMES["a"], "b": _OUTCOMES["b"], "tie": _OUTCOMES["tie"]}

MOST_BRACES = 100
NO_VERDICT = "[no verdict: "
"""The start of the text that replaces a reply which is not a complete answer."""

_BRACKETS = re.compile(r"\[\[\s*([^\[\]]{1,12}?)\s*\]\]")

# "Answer: A", "the better answer is B", "Verdict - tie"
_NAMED = re.compile(
    r"(?<!correct )(?<!right )\b(?:answer|response|option|choice|verdict|winner|preference|judgment|judgement|decision|one)"
    r"\s*(?:is|[:=]|-)\s*[:=]?\s*(?:(?:answer|response|option|assistant|a(?=\s+(?:tie|draw)\b))\s+)?"
    r"[\"'(\[]*(?P<verdict>[AB]|tie|draw)\b[\"')\]]*(?=\s*(?:[.!;(]|$|[,:]?\s*(?:because|since|as|due)\b))",
    re.IGNORECASE,
)
# "A is better", "Response B is clearly the winner", "answer A wins"
_SUBJECT = re.compile(
    r"(?<![\w/&])(?P<verdict>[AB])\s+(?:wins\b|is\s+(?:(?:clearly|slightly|much|far|significantly|marginally|overall)\s+)?"
    r"(?:better|superior|preferred|preferable|best|the\s+(?:better|best|winner|superior|preferred)\b))",
)
_PREFER = re.compile(r"\bI (?:would )?(?:prefer|choose|pick|select) (?:(?:answer|response|option) )?(?P<verdict>[AB])\b")
_TIE = re.compile(r"\b(?:it is|it'?s|this is|call it) a (?P<verdict>tie|draw)\b", re.IGNORECASE)
_STATEMENTS = (_NAMED, _SUBJECT, _PREFER, _TIE)

# A sentence with one of these may negate its verdict, or be a question.
_DOUBT = re.compile(
    r"n\Wt\b|\?|\b(?:not?|never|neither|nor|or|both|hardly|unless|if|whether|could|might|may|although|though|but|however"
    r"|false|wrong|mistaken|sa(?:y|ys|id|ying)|claim(?:s|ed)?)\b",
    re.IGNORECASE,
)
_EMPHASIS = re.compile(r"(?<!\w)[*_`]+|[*_`]+(?!\w)")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_OPENING = " \t*_`\"'“([{"
_CLOSING = " \t*_`\"'”)]}.!:;,"

_NUMBER = r"[-+]?\d+(?:\.\d+)?"
_ALONE = r"(?![\w%]|[.,]\d|\s*(?:[^\w\s.;]|x)\s*\d|\s*(?:to|or|out\s+of|and)\s+\d)"
_SCORE = re.compile(rf"\b(?:score|rating|grade|mark)\s*(?:is|of|[:=])\s*[*_\"'\[(]*({_NUMBER}){_ALONE}", re.IGNORECASE)
_FRACTION = re.compile(rf"(?<![\w./,-])({_NUMBER})\s*(?:/|out\s+of)\s*({_NUMBER})(?![\w%/]|[.,]\d)", re.IGNORECASE)


def parse_preference(reply: str) -> Outcome:
    """The verdict in a reply on two answers shown as A and B; `unparsed` if there is none, or more than one.

    Accepted forms, in this order: the last JSON object with a `winner`; `[[A]]`, `[[C]]` (a tie), `[[A>>B]]`; the letter alone, in
    the first or last line; a plain statement ("The better answer is B."). Thoughts (`<think>`) are ignored.
    """
    text = _without_thoughts(reply)
    winner = _last_json_value(text, "winner")
    if winner is not _ABSENT:
        return _BARE.get(winner.strip().lower(), "unparsed") if isinstance(winner, str) else "unparsed"
    bracketed = {"".join(inner.split()).lower() for inner in _BRACKETS.findall(text)}
    outcomes = {_OUTCOMES[verdict] for verdict in bracketed & _OUTCOMES.keys()}
    outcomes = outcomes or set(_bare_letters(text)) | set(_statements(text))
    return outcomes.pop() if len(outcomes) == 1 else "unparsed"


def parse_order(reply: str, letters: str) -> tuple[frozenset[str], ...] | None:
    """The order in a reply, best first, with equal answers grouped; None unless it has each letter exactly once.

    Accepted forms, in this order: the last JSON object with a `ranking` (a list of letters); `[[B > A = C]]`; `B > A = C` in the
    first or last line. Thoughts (`<think>`) are ignored.
    """
    text = _without_thoughts(reply)
    ranking = _last_json_value(text, "ranking")
    if ranking is not _ABSENT:
        if not isinstance(ranking, list) or not all(isinstance(one, str) for one in ranking):
            return None
        found = {">".join(ranking)}
    else:
        found = set(re.findall(r"\[\[([^\[\]]+)\]\]", text)) or {line for line in _edge_lines(text) if re.search(r"[>=]", line)}
    orders = {_order(one, letters) for one in found}
    return orders.pop() if len(orders) == 1 else None


def _order(text: str, letters: str) -> tuple[frozenset[str], ...] | None:
    groups = tuple(tuple(name.strip().upper() for name in group.split("=")) for group in re.split(r">+", text))
    named = [name for group in groups for name in group]
    return tuple(map(frozenset, groups)) if sorted(named) == sorted(letters) else None


def last_line(reply: str) -> str:
    """The last line that is not blank: the verdict, if reasons come before it."""
    lines = [line for line in reply.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def parse_grade(reply: str, lowest: float, highest: float) -> float | None:
    """The grade in a reply; None if there is none, if it is not within `lowest` and `highest`, or if there is more than one.

    Accepted forms, in this order: the last JSON object with a `score`; `[[7]]`; `8/10` where 10 is the highest; `Score: 7`; the
    number alone, in the first or last line. Thoughts (`<think>`) are ignored.
    """
    text = _without_thoughts(reply)
    score = _last_json_value(text, "score")
    if score is not _ABSENT:
        found = {_number(score)}
    elif bracketed := [inner for inner in _BRACKETS.findall(text) if re.fullmatch(_NUMBER, inner)]:
        found = {_number(inner) for inner in bracketed}
    else:
        plain = " ".join(_EMPHASIS.sub("", text).split())
        found = {_number(number) for number, of in _FRACTION.findall(plain) if float(of) == highest}
        found |= {_number(number) for number in _SCORE.findall(plain)}
        found |= {_number(line) for line in _edge_lines(text) if re.fullmatch(_NUMBER, line)}
    (grade,) = found if len(found) == 1 else (None,)
    return grade if grade is not None and lowest <= grade <= highest else None


_ABSENT = object()


def _without_thoughts(reply: str) -> str:
    """The answer in a reply; empty if it ended inside its thoughts."""
    return "" if reply.startswith(NO_VERDICT) else split_thoughts(reply).answer.strip()


def _last_json_value(text: str, key: str) -> Any:
    """The value of `key` in the last JSON object that has it; `_ABSENT` if none has; None for contradictory values."""
    if f'"{key}"' not in text:
        return _ABSENT
    if text.count("{") > MOST_BRACES:  # not a verdict, and trying each of them takes quadratic time
        return None
    decoder = json.JSONDecoder(object_pairs_hook=_without_contradictions)
    value: Any = _ABSENT
    start = text.find("{")
    while start >= 0:
        try:
            found, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            end = start + 1
        else:
            value = found.get(key, value)
        start = text.find("{", end)
    return value


def _without_contradictions(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        found[key] = None if key in found and found[key] != value else value
    return found


def _edge_lines(text: str) -> Iterator[str]:
    lines = text.splitlines()
    for line in lines[:1] + lines[-1:]:
        yield line.lstrip(_OPENING).rstrip(_CLOSING)


def _bare_letters(text: str) -> Iterator[Outcome]:
    for line in _edge_lines(text):
        verdict = re.sub(r"^(?:answer|response|option|assistant) ", "", line.lower())
        if verdict in _BARE:
            yield _BARE[verdict]


def _statements(text: str) -> Iterator[Outcome]:
    for lines in _SENTENCE_END.split(_EMPHASIS.sub("", text)):
        sentence = " ".join(lines.split())
        for statement in _STATEMENTS:
            for match in statement.finditer(sentence):
                verdict = match["verdict"]
                if verdict not in ("a", "b"):  # these are words, not the requested letters
                    yield "unparsed" if _DOUBT.search(sentence) else _BARE[verdict.lower()]


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and not re.fullmatch(_NUMBER, value.strip()):
        return None
    try:
        number = float(value)
    except OverflowError:  # a whole number of more than 308 digits
        return None
    return number if math.isfinite(number) else None


def answer_schema(labels: Sequence[str]) -> dict[str, Any] | None:
    """The JSON schema of an answer with one of these labels; None without labels."""
    if not labels:
        return None
    if all(label.lstrip("-").isdigit() for label in labels):
        key, value = "score", {"type": "integer", "enum": [int(label) for label in labels]}
    else:
        key, value = "winner", {"type": "string", "enum": [*labels, "tie"]}
    return {"type": "object", "properties": {key: value}, "required": [key], "additionalProperties": False}


def verdict_text(reply: Reply) -> str:
    """The text to parse a verdict from. An incomplete reply is marked so that no verdict is found in it, because a truncated reply
    may have been about to say the opposite.
    """
    problem = reply.problem or ("cut off at max_new_tokens" if reply.finish == "length" else "")
    if not problem:
        return reply.text
    shown = f" {json.dumps(reply.text, ensure_ascii=False)}" if reply.text else ""
    return f"{NO_VERDICT}{' '.join(problem.split())}]{shown}"


def request_failed(verdict: Comparison | Grade) -> bool:
    """Whether a verdict, or a panel member's verdict in it, is missing because the server did not answer, and worth retrying."""
    members = verdict.members if isinstance(verdict, Comparison) else ()
    return f"{NO_VERDICT}{UNANSWERED}" in (verdict.reply or "") or any(map(request_failed, members))
