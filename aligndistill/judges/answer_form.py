"""The form of a judge's answer: as a JSON schema for servers that keep to one, and as text that must not be taken for a verdict."""

import json
from collections.abc import Sequence
from typing import Any

from aligndistill.chat.protocol import UNANSWERED, Reply
from aligndistill.judges.parsing import NO_VERDICT
from aligndistill.records import Comparison, Grade


def answer_schema(labels: Sequence[str]) -> dict[str, Any] | None:
    """What an answer with one of these labels looks like in JSON; None where labels say nothing of it."""
    if not labels:
        return None
    if all(label.lstrip("-").isdigit() for label in labels):
        key, value = "score", {"type": "integer", "enum": [int(label) for label in labels]}
    else:
        key, value = "winner", {"type": "string", "enum": [*labels, "tie"]}
    return {"type": "object", "properties": {key: value}, "required": [key], "additionalProperties": False}


def verdict_text(reply: Reply) -> str:
    """What to read a verdict from. What is no whole answer is kept for people to read, in a form in which no verdict is found.

    A reply that was cut off may have been about to say the opposite.
    """
    problem = reply.problem or ("cut off at max_new_tokens" if reply.finish == "length" else "")
    if not problem:
        return reply.text
    shown = f" {json.dumps(reply.text, ensure_ascii=False)}" if reply.text else ""
    return f"{NO_VERDICT}{' '.join(problem.split())}]{shown}"


def went_unanswered(verdict: Comparison | Grade) -> bool:
    """Whether a verdict, or a panel member's in it, is none because the server did not answer: it is worth asking again."""
    members = verdict.members if isinstance(verdict, Comparison) else ()
    return f"{NO_VERDICT}{UNANSWERED}" in (verdict.reply or "") or any(map(went_unanswered, members))
