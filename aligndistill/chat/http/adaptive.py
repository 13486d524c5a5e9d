"""How many requests are in flight: more while throughput grows, fewer when the server is overloaded.

The limit is doubled as long as that raises throughput by a fifth at least. Twice and half of it are tried again at intervals, which
become longer while that changes nothing: half is enough if it does not lower the throughput. A 429, a 503 or a timeout halves the
limit while it grows, and otherwise lowers it by a quarter; it then climbs by an eighth per round to just below where that happened.
A 429 that says how long to wait is about the rate, and lowers that instead (`RateLimiter.rejected`).
Latency alone is no reason to stop growing: servers that compute requests in batches get slower and answer more. If it doubles while
the limit is the same, the limit is halved.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

START = 8
MOST = 512
LEAST_GAIN = 1.2  # in throughput for twice as many requests in flight, to double again
WORTH_KEEPING = 1.05  # to stay with twice as many: a short queue keeps the server busy
LEAST_ROUND = 8  # answers: fewer say little of the throughput
SLOWER = 2.0  # times the latency of the fastest round at this limit
TRIAL_ROUNDS = 3  # of which the best counts: this machine's other work lowers the throughput of some
STEADY_ROUNDS = 4  # until twice as many, or half, are tried again; doubled by every trial that changes nothing
MOST_STEADY_ROUNDS = 32

Trial = Literal["more", "fewer"] | None


@dataclass
class _Round:
    """Answers to requests that were sent since the limit is what it is.

    Attributes:
        began_seconds: requests sent earlier belong to the round before.
        first_seconds: when the first answer came; what is timed is from there on.
    """

    began_seconds: float
    first_seconds: float | None = None
    answers: int = 0
    latency_seconds: float = 0.0


class FixedLimit:
    """A number of requests in flight that stays as it is."""

    adapts = False

    def __init__(self, current: int) -> None:
        self.current = current

    def restart(self) -> None:
        """Nothing is measured."""

    def began(self) -> float:
        """See `AdaptiveLimit`."""
        return 0.0

    def ended(self, began_seconds: float, overloaded: bool = False, answered: bool = True) -> None:
        """See `AdaptiveLimit`."""


class AdaptiveLimit:
    """The number of requests in flight, by what is seen of them. Can be shared by threads and event loops.

    Attributes:
        current: how many may be in flight now.
    """

    adapts = True

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.current = START
        self._clock = clock
        self._lock = threading.Lock()
        self._in_flight = 0
        self._trial: Trial = "more"
        self._next_trial: Trial = "more"
        self._patience_rounds = STEADY_ROUNDS
        self._trial_rounds, self._best = 0, 0.0  # of the trial: rounds, and their highest throughput
        self._before: float | None = None  # throughput before the trial, answers per second
        self._fastest_seconds: float | None = None  # mean latency of the fastest round at this limit
        self._overloaded_at = MOST + 1
        self._steady_rounds = 0
        self._round = _Round(clock())

    def restart(self) -> None:
        """Requests begin after a pause: what was measured before it is not continued."""
        with self._lock:
            self._round = _Round(self._clock())

    def began(self) -> float:
        """A request is sent. Returns the time, for `ended`."""
        with self._lock:
            self._in_flight += 1
            return self._clock()

    def ended(self, began_seconds: float, overloaded: bool = False, answered: bool = True) -> None:
        """A request has ended.

        Args:
            began_seconds: what `began` returned.
            overloaded: the server answered that it has too many requests, or did not answer in time.
            answered: whether it counts as throughput.
        """
        with self._lock:
            self._in_flight -= 1
            if began_seconds < self._round.began_seconds:
                return  # it says something about an earlier limit
            if overloaded:
                self._overloaded_at = self.current
                lower = self.current // 2 if self._trial == "more" else self.current * 3 // 4
                self._set(max(lower, 1))
            elif answered:
                self._measure(began_seconds)

    def _measure(self, began_seconds: float) -> None:
        now, measured = self._clock(), self._round
        measured.latency_seconds += now - began_seconds
        if measured.first_seconds is None:
            measured.first_seconds = now
            return
        measured.answers += 1
        if measured.answers < max(self.current, LEAST_ROUND):
            return
        if 2 * self._in_flight < self.current or now <= measured.first_seconds:
            self._round = _Round(now)  # there were fewer requests than the limit allows: it was not tried
            return
        throughput = measured.answers / (now - measured.first_seconds)
        latency_seconds = measured.latency_seconds / (measured.answers + 1)
        if self._trial is None:
            self._hold(throughput, latency_seconds)
        else:
            self._trial_rounds += 1
            self._best = max(self._best, throughput)
            self._try()

    def _try(self) -> None:
        before, best, last_round = self._before, self._best, self._trial_rounds == TRIAL_ROUNDS
        if self._trial == "fewer":
            assert before is not None
            if WORTH_KEEPING * best > before:
                self._set(self.current)
            elif last_round:
                self._change_nothing(2 * self.current)
            else:
                self._round = _Round(self._clock())
        elif before is None or best >= LEAST_GAIN * before:
            self._before = best
            self._patience_rounds = STEADY_ROUNDS
            self._set(*((min(2 * self.current, MOST), "more") if self.current < MOST else (MOST, None)))
        elif not last_round:
            self._round = _Round(self._clock())
        elif best > WORTH_KEEPING * before:
            self._set(self.current)
        else:
            self._change_nothing(self.current // 2)

    def _change_nothing(self, limit: int) -> None:
        """Back to the limit before a trial."""
        self._patience_rounds = min(2 * self._patience_rounds, MOST_STEADY_ROUNDS)
        self._set(min(max(limit, 1), MOST))

    def _hold(self, throughput: float, latency_seconds: float) -> None:
        fastest = min(self._fastest_seconds or latency_seconds, latency_seconds)
        self._steady_rounds += 1
        if latency_seconds > SLOWER * fastest:
            self._set(max(self.current // 2, 1))
        elif self._steady_rounds >= self._patience_rounds:
            trial, self._next_trial = self._next_trial, "more" if self._next_trial == "fewer" else "fewer"
            self._before = throughput
            if trial == "more":
                self._overloaded_at = MOST + 1
            self._set(min(2 * self.current, MOST) if trial == "more" else max(self.current // 2, 1), trial)
        elif self.current < self._overloaded_at - 1 < MOST:
            steady_rounds = self._steady_rounds
            self._set(min(self.current + max(self.current // 8, 1), self._overloaded_at - 1))
            self._steady_rounds = steady_rounds
        else:
            self._fastest_seconds = fastest
            self._round = _Round(self._clock())

    def _set(self, limit: int, trial: Trial = None) -> None:
        self.current, self._trial = limit, trial
        self._trial_rounds, self._best = 0, 0.0
        self._fastest_seconds = None
        self._steady_rounds = 0
        self._round = _Round(self._clock())


Limit = FixedLimit | AdaptiveLimit


def limit_of(concurrency: int | Literal["auto"]) -> Limit:
    """The limit that a config asks for."""
    return AdaptiveLimit() if concurrency == "auto" else FixedLimit(concurrency)
