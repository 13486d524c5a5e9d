"""Limits requests and tokens per minute, pauses all requests when the server asks to wait, and learns how many it accepts."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

WINDOW_SECONDS = 60.0
REMEMBERED = 10_000  # requests, to count those before a rejection
LEARNED_MARGIN = 1.05  # times as long a window as the server's: requests take different times to arrive
WINDOWS_BEFORE_RAISE = 4  # without a rejection; doubled by each one, halved by each raise
MOST_WINDOWS_BEFORE_RAISE = 16


@dataclass(eq=False)
class Slot:
    """An admitted request: its start time and the tokens it counts for."""

    began_seconds: float
    tokens: int


@dataclass
class _LearnedLimit:
    """What a server was seen to accept: this many requests in any window of so many seconds, since a time."""

    requests: int
    seconds: float
    since_seconds: float
    windows_before_raise: int = WINDOWS_BEFORE_RAISE


class RateLimiter:
    """Admits requests so that no window of `window_seconds` exceeds the limits. Can be shared by threads and event loops.

    `rejected` adds a limit that the server did not announce: as many requests as it accepted in the time that it asks to wait. When
    no request is rejected for a while, that is raised by a tenth.

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
        self._sent: deque[Slot] = deque(maxlen=REMEMBERED)  # and not rejected
        self._learned: _LearnedLimit | None = None
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

    def rejected(self, slot: Slot, seconds: float) -> None:
        """The server rejected this request because there were too many, and asks to wait this long."""
        with self._lock:
            now, window_seconds = self._clock(), LEARNED_MARGIN * seconds
            if slot in self._sent:
                self._sent.remove(slot)
            accepted = sum(sent.began_seconds > slot.began_seconds - window_seconds for sent in self._sent)
            before, in_pause = self._learned, now < self._paused_until
            windows = WINDOWS_BEFORE_RAISE
            if before is not None:
                windows = before.windows_before_raise if in_pause else 2 * before.windows_before_raise
            windows = min(windows, MOST_WINDOWS_BEFORE_RAISE)
            self._learned = _LearnedLimit(max(accepted, 1), window_seconds, now, windows)
        self.pause(seconds)

    def _try(self, tokens: int) -> Slot | float:
        """A slot, or the seconds to wait before the next attempt."""
        with self._lock:
            now = self._clock()
            while self._slots and self._slots[0].began_seconds <= now - self._window_seconds:
                self._slots.popleft()
            wait = self._paused_until - now
            if self._slots and self._over(tokens):
                wait = max(wait, self._slots[0].began_seconds + self._window_seconds - now)
            wait = max(wait, self._learned_wait(now))
            if wait > 0:
                return wait
            slot = Slot(now, tokens)
            if self._requests is not None or self._tokens is not None:
                self._slots.append(slot)
            self._sent.append(slot)
            return slot

    def _learned_wait(self, now: float) -> float:
        learned = self._learned
        if learned is None or len(self._sent) < learned.requests:
            return 0.0
        wait = self._sent[-learned.requests].began_seconds + learned.seconds - now
        if wait > 0 and now - learned.since_seconds > learned.windows_before_raise * learned.seconds:
            learned.requests, learned.since_seconds = learned.requests + max(learned.requests // 10, 1), now
            learned.windows_before_raise = max(learned.windows_before_raise // 2, WINDOWS_BEFORE_RAISE)
        return wait

    def _over(self, tokens: int) -> bool:
        too_many = self._requests is not None and len(self._slots) >= self._requests
        return too_many or (self._tokens is not None and sum(slot.tokens for slot in self._slots) + tokens > self._tokens)
