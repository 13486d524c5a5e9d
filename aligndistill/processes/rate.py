"""How fast a count grows, and how long the rest takes. Times are seconds of any clock."""

from collections import deque

SECONDS_BETWEEN_BATCHES = 1.0
"""Items that come sooner one after another were made together, as the answers of a batch are."""
RATE_OVER_SECONDS = 60.0
"""The rate is that of the last minute."""
LEFT_AFTER_SECONDS = 5.0
"""No time left is told before that: the first items say little."""


class Rate:
    """The rate of a running count.

    Args:
        done: the count at the start; it has no part in the rate.

    Attributes:
        per_second: items per second in the last minute; 0 where too little is known.
    """

    def __init__(self, now: float, done: int = 0) -> None:
        self.per_second = 0.0
        self._first, self._started = done, now
        self._done, self._last_item = done, now
        self._in_batch = 0
        self._marks: deque[tuple[float, float, int]] = deque([(now, now, done)])
        """Of each batch: when it began and ended, and the count after it."""

    def count(self, done: int, now: float) -> int:
        """Take in a new count; returns the one that the rate is of.

        The first item of a batch says nothing of the rate, since the others come at once: the rate is that of the batch before.
        """
        before, before_seconds = self._done, self._last_item
        self._done, self._last_item = done, now
        begins_batch, was_batch = now - before_seconds > SECONDS_BETWEEN_BATCHES, self._in_batch > 1
        self._in_batch = 1 if begins_batch else self._in_batch + 1
        known, at_seconds = (before, before_seconds) if begins_batch and was_batch else (done, now)
        self.per_second = self._per_second(known, at_seconds)
        return known

    def _per_second(self, done: int, at_seconds: float) -> float:
        """The rate; 0 where too little is known: the first item may be the first of a batch."""
        began, ended, _ = self._marks[-1]
        if len(self._marks) > 1 and at_seconds - began <= SECONDS_BETWEEN_BATCHES:
            self._marks[-1] = (began, at_seconds, done)  # of one batch, the last counts
        elif at_seconds > ended:
            self._marks.append((at_seconds, at_seconds, done))
        while len(self._marks) > 2 and self._marks[1][1] <= at_seconds - RATE_OVER_SECONDS:
            self._marks.popleft()
        _, since, counted = self._marks[0]
        return (done - counted) / (at_seconds - since) if at_seconds > since and done - self._first > 1 else 0.0

    def left_seconds(self, left: int, now: float) -> float | None:
        """How long so many more items take; None while that is not known."""
        known = self.per_second > 0 and now - self._started >= LEFT_AFTER_SECONDS
        return max(0, left) / self.per_second if known else None
