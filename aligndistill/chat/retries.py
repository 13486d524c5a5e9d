"""Which failures of a server are worth another try, and how long to wait before it."""

import email.utils
import time

import tenacity

LONGEST_WAIT_SECONDS = 60.0
TRANSIENT_STATUS = frozenset({408, 409, 429})  # and everything from 500 up


class Transient(Exception):
    """A failure that may be over in a moment; `retry_after_seconds` is the wait that the server asked for."""

    def __init__(self, words: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(words)
        self.retry_after_seconds = retry_after_seconds


def is_transient(status: int, code: str | None) -> bool:
    """Whether an HTTP error may go away by itself. A 429 for want of credit does not."""
    return code != "insufficient_quota" and (status in TRANSIENT_STATUS or status >= 500)


def retry_after_seconds(header: str | None) -> float | None:
    """The `Retry-After` header in seconds from now; None where there is none that can be read (RFC 9110, 10.2.3)."""
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return None


_backoff = tenacity.wait_exponential_jitter(initial=0.5, max=LONGEST_WAIT_SECONDS, jitter=0.5)


def _wait(state: tenacity.RetryCallState) -> float:
    assert state.outcome is not None
    error = state.outcome.exception()
    asked = error.retry_after_seconds if isinstance(error, Transient) else None
    return _backoff(state) if asked is None else min(asked, LONGEST_WAIT_SECONDS)


def retrying(max_retries: int) -> tenacity.AsyncRetrying:
    """Tries again after a `Transient`, at most `max_retries` times, then lets it pass."""
    return tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type(Transient),
        stop=tenacity.stop_after_attempt(max_retries + 1),
        wait=_wait,
        reraise=True,
    )
