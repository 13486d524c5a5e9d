"""Sanitises texts shown to a judge, so that they cannot close their delimiter, start a chat turn, or hide content.

Prompts and candidates pass through `sanitised` before they are put into a template. Related incidents: transformers#29279,
vllm#31735, llama.cpp#26273 (control tokens in text become control tokens), transformers#47386 (markers not flagged special).
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from aligndistill.models.thought_markers import ANY_CLOSING, ANY_OPENING
from aligndistill.records import content_hash

MARK_DIGITS = 12

_KNOWN_MARKERS = (
    r"<\|[^<>\n]{1,60}?\|>",  # ChatML, Llama 3, Phi, GPT
    r"<\uff5c[^<>\n]{1,60}?\uff5c>",  # DeepSeek
    r"<\|[a-z_]{3,30}>|<[a-z_]{3,30}\|>",  # Gemma 4
    r"</?(?:s|start_of_turn|end_of_turn|tool_call|tool_response|start_header_id|end_header_id)>",
    r"<(?:bos|eos|pad|unk|mask|sep|cls|extra_id_\d+)>",
    r"<</?SYS>>",
    r"\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]",
    r"\[(?:CLS|SEP|MASK|PAD|UNK|BOS|EOS)\]",
    rf"(?i:{ANY_OPENING.pattern}|{ANY_CLOSING.pattern})",  # around thoughts
)
"""Turn and control markers of common model families, for servers, whose tokenizers are not available."""

_INVISIBLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u200b\u2060\ufeff\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]")
"""Control characters, zero-width spaces, text-direction overrides and tag characters: read by models, invisible to people."""


def truncate(text: str, characters: int) -> str:
    """The text, truncated to a length, with a note of how much was cut."""
    if len(text) <= characters:
        return text
    return f"{text[:characters]} [cut here: {len(text) - characters} more characters]"


def sanitised(text: str, control_tokens: Iterable[str] = ()) -> str:
    """The text without invisible characters, and with a space inside every control token.

    Args:
        control_tokens: the tokenizer's control tokens, in addition to the known ones.
    """
    return _sanitised(text, frozenset(control_tokens))


@lru_cache(maxsize=256)  # a text is in many questions, one behind the other
def _sanitised(text: str, control_tokens: frozenset[str]) -> str:
    text = _INVISIBLE.sub("", text)
    markers = _markers(control_tokens)
    while markers.search(text):  # the rest of one marker may be part of another
        text = markers.sub(lambda match: _broken(match[0]), text)
    return text


@lru_cache(maxsize=16)
def _markers(control_tokens: frozenset[str]) -> re.Pattern[str]:
    longest_first = sorted(control_tokens, key=lambda token: (-len(token), token))
    own = [re.escape(token) for token in longest_first if token not in _broken(token)]
    return re.compile("|".join((*own, *_KNOWN_MARKERS)))


def control_tokens(tokenizer: Any) -> frozenset[str]:
    """The special and added tokens of a Hugging Face tokenizer that are not blank."""
    return frozenset(token for token in (*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()) if token.strip())


def _broken(marker: str) -> str:
    return f"{marker[:1]} {marker[1:]}"


def delimiter(seed: int, *texts: str) -> str:
    """A delimiter that is in none of the texts, and that their authors cannot predict without the seed.

    It is a hash of the seed and the texts: different for every request, but the same if a request is repeated, so that its reply
    is found in the cache.
    """
    attempt = 0
    while True:
        mark = content_hash("mark", str(seed), str(attempt), *texts)[:MARK_DIGITS]
        if not any(mark in text for text in texts):
            return mark
        attempt += 1
