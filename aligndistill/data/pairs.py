"""Converts a row with `chosen` and `rejected` to a prompt and two responses, wherever the row has its prompt."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aligndistill.data.conversations import Messages, checked_prompt, conversation_of, prompt_of, response_of, text_of
from aligndistill.data.files import BadRow
from aligndistill.data.transcripts import is_transcript
from aligndistill.records import Message


@dataclass(frozen=True)
class Pair:
    """Two responses to a prompt. The texts are unchanged and may be empty or equal."""

    prompt: Messages
    chosen: str
    rejected: str


def pair_of(values: Mapping[str, Any]) -> Pair:
    """Read TRL's explicit and implicit prompts, HH transcripts, and rows whose `chosen` and `rejected` repeat the `prompt`.

    Raises:
        BadRow: see `prompt_of`, `response_of`; also no common prefix, or prompts that differ.
    """
    chosen = conversation_of(values.get("chosen"), "chosen")
    rejected = conversation_of(values.get("rejected"), "rejected")
    if (chosen is None) != (rejected is None):
        raise BadRow("chosen and rejected differ in form", "one is text, the other a conversation")
    if chosen and rejected and chosen[0].role != "assistant":
        pair = _common_turns(chosen, rejected)
        if values.get("prompt") is not None:
            _check_repeated(prompt_of(values["prompt"]), pair.prompt)
        return pair
    if "prompt" in values:
        return _explicit(values)
    if chosen is None:
        return _common_text(text_of(values["chosen"], "chosen"), text_of(values["rejected"], "rejected"))
    raise BadRow("no common prefix", "chosen and rejected begin with the answer, and there is no prompt column")


def _explicit(values: Mapping[str, Any]) -> Pair:
    prompt = prompt_of(values["prompt"])
    chosen, rejected = response_of(values["chosen"], "chosen"), response_of(values["rejected"], "rejected")
    if isinstance(values["prompt"], str) and is_transcript(values["prompt"]):
        chosen, rejected = chosen.strip(), rejected.strip()  # the text after `Assistant:`, as in whole transcripts
    return Pair(prompt, chosen, rejected)


def _common_turns(chosen: Messages, rejected: Messages) -> Pair:
    if chosen[0] != rejected[0]:
        raise BadRow("no common prefix", "chosen and rejected begin with different turns")
    if chosen[:-1] != rejected[:-1]:
        raise BadRow("prompts differ", "chosen and rejected must be the same up to the last turn")
    if chosen[-1].role != "assistant" or rejected[-1].role != "assistant":
        raise BadRow("no assistant turn at the end", "of chosen and rejected")
    return Pair(checked_prompt(chosen[:-1]), chosen[-1].content, rejected[-1].content)


def _check_repeated(prompt: Messages, conversation: Messages) -> None:
    """The `prompt` column may repeat the first, the last or all user turns, but must not contain others."""
    turns = {turn.content.strip() for turn in conversation}
    if any(turn.content.strip() not in turns for turn in prompt if turn.role == "user"):
        raise BadRow("prompts differ", "the prompt column is not part of chosen and rejected")


def _common_text(chosen: str, rejected: str) -> Pair:
    """TRL's `extract_prompt` on text (longest common prefix; a space goes to the responses), but never splitting a word."""
    if chosen == rejected:
        raise BadRow("chosen equals rejected")
    shorter = min(len(chosen), len(rejected))
    end = next((place for place in range(shorter) if chosen[place] != rejected[place]), shorter)
    if not (chosen[end : end + 1].isspace() and rejected[end : end + 1].isspace()):
        while end and not chosen[end - 1].isspace():
            end -= 1
    if end and chosen[end - 1] == " ":
        end -= 1
    prompt = chosen[:end]
    if not prompt.strip():
        raise BadRow("no common prefix", "chosen and rejected share no first word")
    return Pair((Message(role="user", content=prompt),), chosen[end:], rejected[end:])
