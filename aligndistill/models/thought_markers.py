"""The markers around what a model thinks before it answers, as model families write them in replies and templates."""

import re

PAIRS = (
    (r"<think>", r"</think>"),  # Qwen, DeepSeek, GLM, Nemotron, SmolLM
    (r"\[THINK\]", r"\[/THINK\]"),  # Mistral
    (r"<seed:think>", r"</seed:think>"),  # Seed-OSS
    (r"<mm:think>", r"</mm:think>"),  # MiniMax
    (r"<\|START_THINKING\|>", r"<\|END_THINKING\|>"),  # Cohere
    (r"<\|channel>thought\b", r"<channel\|>"),  # Gemma 4
)
"""Opening and closing markers, as regular expressions. Case does not matter."""

ANY_OPENING = re.compile("|".join(opening for opening, _ in PAIRS), re.IGNORECASE)
ANY_CLOSING = re.compile("|".join(closing for _, closing in PAIRS), re.IGNORECASE)

# gpt-oss: each part of a reply has a header with its channel, and the answer is in the channel `final`.
_HEADER = r"(?:<\|start\|>assistant)?<\|channel\|>"
_CHANNEL = rf"{_HEADER}(?:analysis|commentary)(?:[^<]*<\|message\|>)?"
_CHANNEL_END = rf"<\|end\|>|(?={_HEADER})"
ANSWER_HEADER = re.compile(rf"\s*{_HEADER}final(?:[^<]*<\|message\|>)?")

BLOCKS = tuple(
    (re.compile(rf"\s*{opening}", re.IGNORECASE), re.compile(closing, re.IGNORECASE))
    for opening, closing in (*PAIRS, (_CHANNEL, _CHANNEL_END))
)
"""The beginning of a block of thoughts at the start of a text, and its end."""


def opened_at_end(text: str) -> str:
    """The opening marker that a prompt ends with, and nothing but white space after it; empty if there is none."""
    found = list(ANY_OPENING.finditer(text))
    return found[-1][0] if found and not text[found[-1].end() :].strip() else ""


def is_empty_block(text: str) -> bool:
    """Whether a text is thoughts without content: both markers or the closing one alone, and white space."""
    return bool(ANY_CLOSING.search(text)) and not ANY_OPENING.sub("", ANY_CLOSING.sub("", text)).strip()
