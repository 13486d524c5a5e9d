"""The first questions to a server: whether the model thinks, which switch stops it, log-probabilities, answer format, context.

At most seven requests, of which the first is repeated at every start: a server may have been restarted with other options.
"""

import logging
import math
from dataclasses import dataclass
from typing import Any

from aligndistill.chat.http.capabilities import FORMAT_PROBES, PROBE_TOKENS, TOP_LOGPROBS, Capabilities, FormatProbe
from aligndistill.chat.http.client import OpenSession, ServerClient
from aligndistill.chat.http.retries import RequestRejected, RetriesExhausted
from aligndistill.chat.http.thinking import switches, thinks
from aligndistill.chat.http.wire import Completion, ModelCard
from aligndistill.config.models import EndpointModel
from aligndistill.errors import JudgeError
from aligndistill.records import Message

LETTER = "A"
QUESTION = (Message(role="user", content=f"Reply with the single letter {LETTER}."),)
QUESTION_TOKENS = 24
"""Enough for a letter with some words around it, and few enough that thoughts do not end within."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Seen:
    """One reply to the question.

    Attributes:
        has_thoughts: whether the model thought.
        label_mass: the probability of the letter as the first token of the answer; None without log-probabilities.
        begins_with_letter: whether the answer does.
        accepts_logprobs: whether the server did not reject the request for log-probabilities.
        ignores_logprobs: whether it accepted it and gave none.
    """

    has_thoughts: bool
    label_mass: float | None
    begins_with_letter: bool
    accepts_logprobs: bool
    ignores_logprobs: bool


async def look_at(server: ServerClient, session: OpenSession, config: EndpointModel, capabilities: Capabilities) -> None:
    """Find out what is not known yet, and whether what is known still holds.

    Raises:
        JudgeError: the server rejects all requests or cannot be reached; or `thinking: off` was asked for, and nothing stops it.
    """
    card = await server.describe(session)
    if capabilities.found.thinks is not None and await _is_unchanged(server, session, config, capabilities, card):
        return
    seen = await _ask(server, session, None)
    if seen is None:
        return
    now, switch = seen, None
    if seen.has_thoughts != (config.thinking == "on"):
        now, switch = await _switched(server, session, config, seen)
    capabilities.update(
        thinks=seen.has_thoughts,
        switch=switch,
        card=card.text if card else None,
        context_tokens=card.context_tokens if card else None,
        label_mass=now.label_mass,
        top_logprobs=TOP_LOGPROBS[0] if now.label_mass is not None else 0 if now.ignores_logprobs else None,
    )
    _report(server.name, config, seen, switch)


async def _switched(server: ServerClient, session: OpenSession, config: EndpointModel, seen: _Seen) -> tuple[_Seen, str | None]:
    """The first switch that works, with the reply that shows it; the reply without a switch, if none does."""
    for name in switches(config):
        if name == "prefill" and not seen.accepts_logprobs:
            continue
        other = await _ask(server, session, name, seen.accepts_logprobs)
        if other is not None and other.has_thoughts != seen.has_thoughts and (other.has_thoughts or other.begins_with_letter):
            return other, name
    return seen, None


def _report(name: str, config: EndpointModel, seen: _Seen, switch: str | None) -> None:
    if seen.has_thoughts and config.thinking == "off" and switch is None:
        raise JudgeError(
            f"{name} thinks before it answers, and thinking: off was asked for, but the server ignores every known switch "
            f"({', '.join(switches(config))}). Start it with thinking switched off (vLLM: --default-chat-template-kwargs "
            "'{\"enable_thinking\": false}'; llama.cpp and transformers: --reasoning off), or write thinking: on."
        )
    if seen.has_thoughts and config.thinking == "auto":
        how = f"switched off by {switch}" if switch else f"nothing switches it off: {config.thinking_tokens} more tokens for it"
        _log.info("%s thinks before it answers; %s.", name, how)
    if not seen.has_thoughts and config.thinking == "on" and switch is None:
        _log.warning("%s does not think before it answers, though thinking: on was asked for.", name)


async def _is_unchanged(
    server: ServerClient, session: OpenSession, config: EndpointModel, capabilities: Capabilities, card: ModelCard | None
) -> bool:
    """Whether one reply is as expected from what was found in an earlier run. If not, everything is forgotten."""
    found = capabilities.found
    seen = await _ask(server, session, found.switch)
    if seen is None:
        return True
    expected = thinks(config, found)
    same_card = found.card == (card.text if card else None)
    same_logprobs = expected or bool(found.top_logprobs) == (seen.label_mass is not None)
    if same_card and same_logprobs and seen.has_thoughts == expected:
        return True
    _log.info("%s answers differently than in the last run: asking again what it supports.", server.name)
    capabilities.forget()
    return False


async def _ask(server: ServerClient, session: OpenSession, switch: str | None, with_logprobs: bool = True) -> _Seen | None:
    """A reply to the question; None if the server rejects it with this switch, or does not answer this time."""
    fields: dict[str, Any] = {"temperature": 0.0, "max_tokens": QUESTION_TOKENS, "seed": 0}
    if with_logprobs:
        fields |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS[0]}
    try:
        completion = await server.complete(session, QUESTION, switch=switch, **fields)
    except RequestRejected as refusal:
        if switch is None and with_logprobs:
            return await _ask(server, session, None, with_logprobs=False)
        if switch is None:
            await server.refused(session, 0, QUESTION, str(refusal))
        return None
    except RetriesExhausted as failure:
        await server.given_up(session, failure)
        return None
    session.failures_in_a_row = 0
    return _seen(completion, with_logprobs)


def _seen(completion: Completion, with_logprobs: bool) -> _Seen:
    tokens = completion.first_position()
    mass = None if tokens is None else math.fsum(math.exp(one.logprob) for one in tokens if one.token.strip() == LETTER)
    begins = completion.reply().text.lstrip("*\"'`( \n").startswith(LETTER)
    ignores = with_logprobs and not completion.has_logprobs
    return _Seen(completion.has_thoughts, mass, begins, with_logprobs, ignores)


async def find_answer_format(server: ServerClient, session: OpenSession, capabilities: Capabilities, thought_tokens: int) -> None:
    """Find the strictest answer format that the server enforces, with prompts that do not suggest the format.

    Args:
        thought_tokens: the most tokens of thoughts, 0 for a model that does not think. Where it thinks, a format that keeps it from
            thinking is not used: some servers (vLLM without a reasoning parser, llama.cpp with a template that it does not know)
            enforce it from the first token.

    Raises:
        JudgeError: the server rejects all requests or cannot be reached.
    """
    for probe in FORMAT_PROBES:
        if await _is_honoured(server, session, probe, thought_tokens):
            capabilities.update(answer_format=probe.name)
            return
    capabilities.update(answer_format="text")


async def _is_honoured(server: ServerClient, session: OpenSession, probe: FormatProbe, thought_tokens: int) -> bool:
    fields: dict[str, Any] = {"temperature": 0.0, "max_tokens": PROBE_TOKENS + thought_tokens}
    try:
        completion = await server.complete(session, probe.messages, **fields, response_format=probe.response_format)
    except RequestRejected:
        return False
    except RetriesExhausted as failure:
        await server.given_up(session, failure)
        return False
    return probe.is_honoured(completion.reply().text) and (completion.has_thoughts or not thought_tokens)
