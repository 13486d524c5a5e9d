"""The log-probabilities of a prompt's tokens, as vLLM gives them in a completion.

    POST /v1/completions   {"prompt": TOKEN IDS, "max_tokens": 1, "prompt_logprobs": 0, "return_token_ids": true}

`prompt_logprobs` is a list with an entry for each token of the prompt: null for the first one, which nothing predicts, then
`{ID: {"logprob": ...}}` of the token itself and of as many likelier ones as were asked for, here none. JSON has no infinity: vLLM
writes -9999 for a probability of 0.
"""

import math
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from aligndistill.config.models import EndpointModel
from aligndistill.records import Usage

ROUNDING_NATS = 1e-3
"""How far above 0 the log-probability of a certain token may be, by rounding."""

AT_TEMPERATURE_1 = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
"""Sent with each request: vLLM takes missing parameters from the model's generation config, and may be told to apply them."""


def scoring_body(config: EndpointModel, ids: Sequence[int]) -> dict[str, Any]:
    """The body of a request for the log-probabilities of these tokens, with what the config adds. One token must be sampled."""
    asked = {"model": config.name, "prompt": [*ids], "max_tokens": 1, "prompt_logprobs": 0, "return_token_ids": True}
    return {**asked, **AT_TEMPERATURE_1, **config.body}


class MisalignedLogprobs(Exception):
    """What a server said is not of the tokens that were sent; the message says what came back."""


class _Known(BaseModel):
    logprob: float | None = None


class _Scored(BaseModel):
    prompt_logprobs: list[dict[int, _Known] | None] | None = None
    prompt_token_ids: list[int] | None = None


class _Used(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class ScoredPrompt(BaseModel):
    """The body of an answer with status 200."""

    choices: list[_Scored]
    usage: _Used | None = None

    def charged(self, at_most: Usage) -> Usage:
        """The cost for budget and rate limits: as reported by the server, else by what was sent."""
        used = self.usage or _Used()
        if not used.prompt_tokens:
            return at_most
        return Usage(calls=1, prompt_tokens=used.prompt_tokens, completion_tokens=used.completion_tokens or 0)

    def logprobs_of(self, ids: Sequence[int]) -> list[float]:
        """The log-probability of each token behind the first one, nats; -inf or less than -1000 for one that is impossible.

        Raises:
            MisalignedLogprobs: they are not those of these tokens.
        """
        if len(self.choices) != 1:
            raise MisalignedLogprobs(f"{len(self.choices)} choices instead of one")
        (choice,) = self.choices
        if choice.prompt_logprobs is None:
            raise MisalignedLogprobs("no prompt_logprobs")
        if len(choice.prompt_logprobs) != len(ids):
            raise MisalignedLogprobs(f"{len(choice.prompt_logprobs)} prompt_logprobs for {len(ids)} tokens")
        if choice.prompt_token_ids is not None and choice.prompt_token_ids != [*ids]:
            raise MisalignedLogprobs(f"prompt_token_ids {_short(choice.prompt_token_ids)}, where {_short(ids)} were sent")
        return [_logprob(place, entry, ids[place]) for place, entry in enumerate(choice.prompt_logprobs) if place]


def _logprob(place: int, entry: dict[int, _Known] | None, id: int) -> float:
    if entry is None or id not in entry:
        named = "no log-probability" if not entry else f"the log-probability of token {', '.join(map(str, [*entry][:4]))}"
        raise MisalignedLogprobs(f"{named} at place {place}, where token {id} was sent")
    found = entry[id].logprob
    if found is None or math.isnan(found) or found > ROUNDING_NATS:
        raise MisalignedLogprobs(f"the log-probability {found} of token {id} at place {place}")
    return found


def _short(ids: Sequence[int]) -> str:
    return f"{[*ids]}" if len(ids) <= 12 else f"[{', '.join(map(str, ids[:12]))}, ...] ({len(ids)})"
