"""The fields of a server's chat completion that are used; others are ignored.

Servers report thoughts in `reasoning` (vLLM, Ollama, OpenRouter) or `reasoning_content` (SGLang, llama.cpp, DeepSeek), or leave
them in the text, between markers of the model's family.
"""

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from aligndistill.chat.http.retries import TransientError
from aligndistill.chat.http.token_counts import by_length
from aligndistill.chat.protocol import CUT_IN_THOUGHTS, NO_ANSWER, Reply
from aligndistill.chat.thoughts import split_thoughts
from aligndistill.records import Finish, Message, Usage

NEGLIGIBLE_SHARE = 1e-3

CUT_OFF = frozenset({"length", "max_tokens", "model_length"})
"""The finish reasons of texts that reached a limit; `model_length` is Mistral's for the context."""

BROKEN_OFF = frozenset({"abort", "error", "insufficient_system_resource"})
"""The finish reasons of texts that a failure of the server ended: vLLM and SGLang, OpenRouter and Mistral, DeepSeek."""


class TokenLogprob(BaseModel):
    """One of a position's most likely tokens and its log-probability, nats."""

    token: str
    logprob: float


def label_logprobs(tokens: Sequence[TokenLogprob], labels: Sequence[str]) -> tuple[float, ...] | None:
    """The log-probability of each label as the first token, nats.

    Tokens that differ only in leading white space count as one label. A label that is not listed gets the remaining probability,
    or the smallest listed one if that is less, which is an upper bound.

    Returns:
        None if the tokens are not conclusive: no label is among them, or a label (`1`) with more than a negligible share of the
        probability may be the first token of a longer label (`10`).
    """
    listed = [token for token in tokens if math.isfinite(token.logprob)]
    mass = {label: sum(math.exp(t.logprob) for t in listed if t.token.lstrip() == label) for label in labels}
    seen = sum(mass.values())
    if seen == 0:
        return None
    for label, probability in mass.items():
        longer_unseen = any(mass[other] == 0 for other in labels if other != label and other.startswith(label))
        if longer_unseen and probability > NEGLIGIBLE_SHARE * seen:
            return None
    smallest = min(math.exp(token.logprob) for token in listed)
    left_over = max(1.0 - sum(math.exp(token.logprob) for token in listed), 0.0)
    floor = max(min(left_over, smallest), math.ulp(0.0))
    return tuple(math.log(mass[label] or floor) for label in labels)


class _Message(BaseModel):
    content: str | None = None
    refusal: Any = None
    tool_calls: Any = None
    reasoning: Any = None
    reasoning_content: Any = None

    @property
    def thoughts(self) -> str:
        """What the server reports as thoughts."""
        found = (one for one in (self.reasoning, self.reasoning_content) if isinstance(one, str) and one)
        return next(found, "")


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None
    logprobs: Any = None

    def reply(self, usage: Usage) -> Reply:
        inside, text, unfinished = split_thoughts(self.message.content or "")
        thoughts = "\n".join(part for part in (self.message.thoughts, inside) if part)
        finish: Finish = "length" if self.finish_reason in CUT_OFF else "stop"
        problem = self._problem(text, thoughts, unfinished, usage)
        return Reply(text, finish, usage, problem, thoughts)

    def _problem(self, text: str, thoughts: str, unfinished: bool, usage: Usage) -> str:
        """Why this is no usable answer; empty if it is one."""
        if self.finish_reason == "content_filter":
            return "stopped by the server's content filter"
        if self.message.refusal:
            return "refused by the model"
        if text:
            return ""
        if self.message.tool_calls:
            return "a tool call instead of a text"
        if self.finish_reason in CUT_OFF and thoughts:
            return f"{CUT_IN_THOUGHTS} ({usage.completion_tokens} tokens)" if usage.completion_tokens else CUT_IN_THOUGHTS
        if unfinished:
            return NO_ANSWER
        return "no text" if self.message.content is None else ""


class _TokenDetails(BaseModel):
    reasoning_tokens: int | None = None


class _Tokens(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    completion_tokens_details: _TokenDetails | None = None


class _Position(BaseModel):
    token: str | None = None
    top_logprobs: list[TokenLogprob]


class _Logprobs(BaseModel):
    content: list[_Position]


class Completion(BaseModel):
    """The body of an answer with status 200."""

    choices: list[_Choice]
    usage: _Tokens | None = None

    def cost(self) -> Usage:
        """The tokens reported by the server."""
        tokens = self.usage or _Tokens()
        return Usage(calls=1, prompt_tokens=tokens.prompt_tokens or 0, completion_tokens=tokens.completion_tokens or 0)

    def charged(self, at_most: Usage) -> Usage:
        """The cost for budget and rate limits: as reported by the server, else estimated."""
        reported = self.cost()
        if reported.prompt_tokens or reported.completion_tokens:
            return reported
        written = sum(by_length([Message(role="assistant", content=reply.text)]) for reply in self.replies())
        return Usage(calls=1, prompt_tokens=at_most.prompt_tokens, completion_tokens=min(written, at_most.completion_tokens))

    @property
    def broken_off(self) -> str:
        """Which failure of the server ended one of the choices; empty if none did."""
        return failure_in(choice.finish_reason for choice in self.choices)

    def reply(self) -> Reply:
        """The first choice, or an empty text with a `problem` if there is none."""
        return self.replies()[0]

    def replies(self) -> list[Reply]:
        """All choices, at least one; the first has the whole cost."""
        if not self.choices:
            return [Reply("", "stop", self.cost(), "no choices")]
        return [choice.reply(Usage() if number else self.cost()) for number, choice in enumerate(self.choices)]

    def with_answer_from_thoughts(self, schema: Mapping[str, Any]) -> "Completion":
        """With thoughts as the text where there is no text and they are the JSON that was asked for: vLLM with a reasoning parser
        for another mode of the model puts the whole answer there (vllm#19839)."""
        choices = [
            choice.model_copy(update={"message": _Message(content=choice.message.thoughts)})
            if not choice.message.content and _has_keys(choice.message.thoughts, schema.get("required", ()))
            else choice
            for choice in self.choices
        ]
        return self.model_copy(update={"choices": choices})

    @property
    def has_thoughts(self) -> bool:
        """Whether the model thought, as far as the server lets it be known: OpenAI only counts the tokens."""
        details = self.usage.completion_tokens_details if self.usage else None
        if details is not None and details.reasoning_tokens:
            return True
        reply = self.reply()
        return bool(reply.thoughts) or (not reply.text and reply.finish == "length")

    def first_position(self) -> list[TokenLogprob] | None:
        """The most likely first tokens of the answer.

        None if there are no log-probabilities in OpenAI's format, or if they are not those of the answer: servers list the tokens
        of thoughts, too, which come first.
        """
        positions = self._positions
        if not positions:
            return None
        reply = self.replies()[0]
        if reply.thoughts or not _begins_with(reply.text, positions[0]):
            return None
        return positions[0].top_logprobs

    @property
    def has_logprobs(self) -> bool:
        """Whether there are log-probabilities in OpenAI's format, of whichever tokens."""
        return bool(self._positions)

    @property
    def _positions(self) -> list[_Position]:
        try:
            return _Logprobs.model_validate(self.choices[0].logprobs).content if self.choices else []
        except ValidationError:
            return []


def _has_keys(text: str, keys: Collection[str]) -> bool:
    """Whether a text is a JSON object with exactly these keys."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.keys() == set(keys)


def _begins_with(text: str, position: _Position) -> bool:
    """Whether a text begins with the token at this position. Older servers do not name the token, only the most likely ones."""
    tokens = [position.token] if position.token is not None else [one.token for one in position.top_logprobs]
    return any(token.strip() and text.lstrip().startswith(token.strip()) for token in tokens)


def failure_in(finish_reasons: Iterable[str | None]) -> str:
    """The first of these that is a failure of the server, in words; empty if none is."""
    return next((f"the server broke off (finish_reason: {one})" for one in finish_reasons if one in BROKEN_OFF), "")


def read_completion(content: bytes) -> Completion:
    """The completion in a body. Lone surrogates in its texts are replaced.

    Raises:
        ValidationError: it is not a completion.
        TransientError: the server broke off.
    """
    try:
        completion = Completion.model_validate_json(content)
    except ValidationError:
        if b"\\ud" not in content.lower():
            raise
        whole = json.dumps(json.loads(content), ensure_ascii=False)
        completion = Completion.model_validate_json(whole.encode("utf-8", "replace"))
    if completion.broken_off:
        raise TransientError(completion.broken_off)
    return completion


class ModelCard(BaseModel):
    """A model in a server's list of models.

    Attributes:
        context_tokens: the most tokens of prompt and answer together, if the server says so.
        text: what identifies the model and how it was loaded.
    """

    context_tokens: int | None
    text: str


def model_card(content: bytes, name: str) -> ModelCard | None:
    """The card of a model in the body of `GET /v1/models`; None if it is not listed."""
    try:
        listed = json.loads(content)["data"]
        named = [one for one in listed if isinstance(one, dict) and one.get("id") == name]
        card = named[0] if named else listed[0] if len(listed) == 1 else None
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        return None
    if not isinstance(card, dict):
        return None
    meta: Any = card.get("meta")
    limits = (card.get("max_model_len"), meta.get("n_ctx") if isinstance(meta, dict) else None)  # vLLM and SGLang; llama.cpp
    tokens = next((one for one in limits if isinstance(one, int) and one > 0), None)
    kept = {key: value for key, value in card.items() if key not in ("created", "permission")}
    return ModelCard(context_tokens=tokens, text=json.dumps(kept, sort_keys=True)[:2000])
