"""No more requests and tokens a minute than a server allows, and a pause for all when it asks one to wait."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

WINDOW_SECONDS = 60.0


@dataclass
class Slot:
    """A request that was let through: when, and the tokens it is counted for."""

    began_seconds: float
    tokens: int


class RateLimiter:
    """Lets requests through, so that no `window_seconds` see more than the limits. Shared by threads and event loops.

    Args:
        requests, tokens: the most per window; None sets no limit. A request that alone is over `tokens` waits for an empty window.
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
        self._turns: deque[Slot] = deque()
        self._paused_until = 0.0

    async def turn(self, tokens: int) -> Slot:
        """Wait until a request of about so many tokens may be sent. Set the turn's `tokens` right when they are known."""
        import asyncio  # only here: a plan imports this file, too

        while isinstance(found := self._try(tokens), float):
            await asyncio.sleep(found)
        return found

    def pause(self, seconds: float) -> None:
        """Let nothing through for so long."""
        with self._lock:
            self._paused_until = max(self._paused_until, self._clock() + seconds)

    def _try(self, tokens: int) -> Slot | float:
        """A turn, or the seconds to wait before another try."""
        with self._lock:
            now = self._clock()
            while self._turns and self._turns[0].began_seconds <= now - self._window_seconds:
                self._turns.popleft()
            wait = self._paused_until - now
            if self._turns and self._over(tokens):
                wait = max(wait, self._turns[0].began_seconds + self._window_seconds - now)
            if wait > 0:
                return wait
            turn = Slot(now, tokens)
            if self._requests is not None or self._tokens is not None:
                self._turns.append(turn)
            return turn

    def _over(self, tokens: int) -> bool:
        too_many = self._requests is not None and len(self._turns) >= self._requests
        return too_many or (self._tokens is not None and sum(turn.tokens for turn in self._turns) + tokens > self._tokens)
