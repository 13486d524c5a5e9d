"""Classifies server errors: transient (and when to retry), specific to one request, or permanent."""

import email.utils
import json
import re
import time
from typing import Literal

import tenacity

LONGEST_WAIT_SECONDS = 60.0
"""Between two attempts if the server does not specify a wait."""

LONGEST_RETRY_AFTER_SECONDS = 900.0
"""The longest `Retry-After` that is accepted; a longer one ends the run with an error."""

TRANSIENT_STATUS = frozenset({408, 409, 425, 429})  # and nearly all from 500
OVERLOADED_STATUS = frozenset({429, 503})
PER_ITEM_STATUS = frozenset({400, 413, 422})
NEVER_STATUS = frozenset({501, 505})
WITHOUT_CREDIT = re.compile(r"insufficient_quota|billing|credit|payment|exceeded your current quota", re.IGNORECASE)
NO_SUCH_MODEL = re.compile(r"model_not_found|model .{0,200}(?:not found|does not exist)", re.IGNORECASE)
TEMPLATE_ERROR = re.compile(r"jinja", re.IGNORECASE)

FailureKind = Literal["transient", "permanent", "per item"]


class TransientError(Exception):
    """A temporary failure.

    Attributes:
        retry_after_seconds: the wait requested by the server.
        overloaded: the server has too many requests, or did not answer in time.
        rate_limited: it works, and has too many requests.
    """

    def __init__(
        self, message: str, retry_after_seconds: float | None = None, overloaded: bool = False, rate_limited: bool = False
    ) -> None:
        super().__init__(message)
        self.rate_limited = rate_limited
        self.retry_after_seconds = retry_after_seconds
        self.overloaded = overloaded


class RequestRejected(Exception):
    """The server rejected this request (too long, or with an unknown field)."""


class AccessDenied(Exception):
    """The server rejects all requests: a wrong key or URL, no credit, or a very long wait.

    `advice` says what to do, if that is known.
    """

    def __init__(self, message: str, status: int, advice: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.advice = advice


class RetriesExhausted(Exception):
    """A request failed in every attempt."""


def failure_kind(status: int, body: str) -> FailureKind:
    """Classifies an HTTP error. A 429 for missing credit and a missing model are permanent. llama.cpp answers 500 to a
    conversation that the chat template rejects, and would do so again."""
    reason = _reason(body)
    if status == 429 and WITHOUT_CREDIT.search(reason):
        return "permanent"
    if status in PER_ITEM_STATUS and NO_SUCH_MODEL.search(reason):
        return "permanent"
    if status == 500 and TEMPLATE_ERROR.search(reason):
        return "per item"
    if status in TRANSIENT_STATUS or (status >= 500 and status not in NEVER_STATUS):
        return "transient"
    return "per item" if status in PER_ITEM_STATUS else "permanent"


def _reason(body: str) -> str:
    """The error's code, type and message from the usual JSON forms; empty if the body is not JSON."""
    try:
        content = json.loads(body)
    except ValueError:
        return ""
    error = content.get("error", content) if isinstance(content, dict) else content
    if isinstance(error, dict):
        return " ".join(str(error.get(key, "")) for key in ("code", "type", "message"))
    return str(error)


def retry_after_seconds(header: str | None) -> float | None:
    """The `Retry-After` header in seconds from now; None if missing or invalid (RFC 9110, 10.2.3)."""
    if header is None:
        return None
    if re.fullmatch(r"\s*[-+]?\d+(?:\.\d*)?\s*", header):
        return max(0.0, float(header))
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


_backoff = tenacity.wait_exponential_jitter(initial=0.5, max=LONGEST_WAIT_SECONDS, jitter=0.5)


def _wait(state: tenacity.RetryCallState) -> float:
    assert state.outcome is not None
    error = state.outcome.exception()
    asked = error.retry_after_seconds if isinstance(error, TransientError) else None
    return _backoff(state) if asked is None else asked


def retrying(max_retries: int) -> tenacity.AsyncRetrying:
    """Retries after a `TransientError`, at most `max_retries` times, then raises it."""
    return tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type(TransientError),
        stop=tenacity.stop_after_attempt(max_retries + 1),
        wait=_wait,
        reraise=True,
    )
