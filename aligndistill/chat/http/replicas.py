"""Which of several servers with the same model gets the next request."""

import threading
import time
from collections.abc import Callable

REST_SECONDS = 5.0
"""How long a server that failed gets no requests, unless all have failed."""


class Replicas:
    """Chooses the one with the fewest requests in flight. Can be shared by threads and event loops."""

    def __init__(self, count: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._in_flight = [0] * count
        self._resting_until = [0.0] * count
        self._clock = clock
        self._lock = threading.Lock()

    def begin(self) -> int:
        """The number of the server for a request; the first one of several. If all rest, the one that has rested longest."""
        with self._lock:
            now = self._clock()
            numbers = range(len(self._in_flight))
            awake = [number for number in numbers if self._resting_until[number] <= now]
            chosen = min(awake, key=self._in_flight.__getitem__) if awake else min(numbers, key=self._resting_until.__getitem__)
            self._in_flight[chosen] += 1
            return chosen

    def end(self, number: int, failed: bool) -> None:
        """A request to a server has ended. One that failed rests."""
        with self._lock:
            self._in_flight[number] -= 1
            if failed:
                self._resting_until[number] = self._clock() + REST_SECONDS

    def another(self) -> bool:
        """Whether a server does not rest."""
        with self._lock:
            now = self._clock()
            return any(until <= now for until in self._resting_until)
