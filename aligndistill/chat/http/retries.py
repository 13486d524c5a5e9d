"""What a failure of a server means: worth another try (and when), this request's own fault, or the end."""

import email.utils
import json
import re
import time
from typing import Literal

import tenacity

LONGEST_WAIT_SECONDS = 60.0
"""Between two tries where the server does not say how long to wait."""

LONGEST_RETRY_AFTER_SECONDS = 900.0
"""The longest wait that a server may ask for (`Retry-After`); one that asks for more ends the run, which says so."""

TRANSIENT_STATUS = frozenset({408, 409, 425, 429})  # and nearly everything from 500 up
PER_ITEM_STATUS = frozenset({400, 413, 422})
NEVER_STATUS = frozenset({501, 505})
WITHOUT_CREDIT = re.compile(r"insufficient_quota|billing|credit|payment|exceeded your current quota", re.IGNORECASE)
NO_SUCH_MODEL = re.compile(r"model_not_found|model .{0,200}(?:not found|does not exist)", re.IGNORECASE)

FailureKind = Literal["transient", "permanent", "per item"]


class TransientError(Exception):
    """A failure that may be over in a moment; `retry_after_seconds` is the wait that the server asked for."""

    def __init__(self, words: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(words)
        self.retry_after_seconds = retry_after_seconds


class RequestRejected(Exception):
    """The server took the request for a bad one (too long, a field it does not know)."""


class AccessDenied(Exception):
    """The server will not take any such request: a wrong key, an address that is none, no credit, none for the next hour.

    `advice` says what to do, where that is known already.
    """

    def __init__(self, words: str, status: int, advice: str | None = None) -> None:
        super().__init__(words)
        self.status = status
        self.advice = advice


class RetriesExhausted(Exception):
    """A request had no answer in any of its tries."""


def failure_kind(status: int, body: str) -> FailureKind:
    """What an HTTP error means. A 429 for want of credit will not pass, and no request is good to a model that is not there."""
    reason = _reason(body)
    if status == 429 and WITHOUT_CREDIT.search(reason):
        return "permanent"
    if status in PER_ITEM_STATUS and NO_SUCH_MODEL.search(reason):
        return "permanent"
    if status in TRANSIENT_STATUS or (status >= 500 and status not in NEVER_STATUS):
        return "transient"
    return "per item" if status in PER_ITEM_STATUS else "permanent"


def _reason(body: str) -> str:
    """The error's code, type and message, in whichever of the usual shapes; the whole body where it has none of them."""
    try:
        content = json.loads(body)
    except ValueError:
        return ""
    error = content.get("error", content) if isinstance(content, dict) else content
    if isinstance(error, dict):
        return " ".join(str(error.get(key, "")) for key in ("code", "type", "message"))
    return str(error)


def retry_after_seconds(header: str | None) -> float | None:
    """The `Retry-After` header in seconds from now; None where there is none that can be read (RFC 9110, 10.2.3)."""
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
    """Tries again after a `TransientError`, at most `max_retries` times, then lets it pass."""
    return tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type(TransientError),
        stop=tenacity.stop_after_attempt(max_retries + 1),
        wait=_wait,
        reraise=True,
    )
