"""Limits requests and tokens per minute, and pauses all requests when the server asks to wait."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

WINDOW_SECONDS = 60.0


@dataclass
class Slot:
    """An admitted request: its start time and the tokens it counts for."""

    began_seconds: float
    tokens: int


class RateLimiter:
    """Admits requests so that no window of `window_seconds` exceeds the limits. Can be shared by threads and event loops.

    Args:
        requests, tokens: the most per window; None sets no limit. A single request with more than `tokens` waits for an empty
            window.
    """

    def __init__(
        self,
        requests: int | None,
        tokens: int | None,
        window_seconds: float = WINDOW_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._requests, self._tokens = requests, tokens
        self._window_seconds = window_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._slots: deque[Slot] = deque()
        self._paused_until = 0.0

    async def acquire(self, tokens: int) -> Slot:
        """Wait until a request of about this many tokens may be sent. Set the slot's `tokens` to the actual number afterwards."""
        import asyncio  # imported late: `plan` imports this module too

        while isinstance(found := self._try(tokens), float):
            await asyncio.sleep(found)
        return found

    def pause(self, seconds: float) -> None:
        """Admit no requests for this long."""
        with self._lock:
            self._paused_until = max(self._paused_until, self._clock() + seconds)

    def _try(self, tokens: int) -> Slot | float:
        """A slot, or the seconds to wait before the next attempt."""
        with self._lock:
            now = self._clock()
            while self._slots and self._slots[0].began_seconds <= now - self._window_seconds:
                self._slots.popleft()
            wait = self._paused_until - now
            if self._slots and self._over(tokens):
                wait = max(wait, self._slots[0].began_seconds + self._window_seconds - now)
            if wait > 0:
                return wait
            slot = Slot(now, tokens)
            if self._requests is not None or self._tokens is not None:
                self._slots.append(slot)
            return slot

    def _over(self, tokens: int) -> bool:
        too_many = self._requests is not None and len(self._slots) >= self._requests
        return too_many or (self._tokens is not None and sum(slot.tokens for slot in self._slots) + tokens > self._tokens)
