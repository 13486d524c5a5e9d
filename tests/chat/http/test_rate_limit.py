import asyncio
import itertools
import time
from dataclasses import dataclass, field

import pytest

from aligndistill.chat.endpoint import EndpointChat
from aligndistill.chat.http.rate_limit import LEARNED_MARGIN, RateLimiter
from aligndistill.chat.protocol import Request, SamplingParams
from aligndistill.records import Message
from tests.chat.fault_server import FaultServer, completion, error


def most_in_a_window(times: list[float], amounts: list[int], window_seconds: float) -> int:
    return max(
        sum(amount for other, amount in zip(times, amounts, strict=True) if begin <= other < begin + window_seconds)
        for begin in times
    )


def let_through(limiter: RateLimiter, tokens: list[int]) -> list[float]:
    """When each of some requests that are all there at once is let through."""

    async def one(amount: int) -> float:
        await limiter.acquire(amount)
        return time.monotonic()

    async def everyone() -> list[float]:
        return await asyncio.gather(*map(one, tokens))

    return asyncio.run(everyone())


def test_no_window_sees_more_requests_than_the_limit() -> None:
    times = let_through(RateLimiter(5, None, window_seconds=0.2), [1] * 18)
    # What is let through in one window is timed a little later, so the windows that are looked at are a little shorter.
    assert most_in_a_window(times, [1] * 18, 0.15) == 5
    assert max(times) - min(times) >= 0.55


def test_no_window_sees_more_tokens_than_the_limit() -> None:
    amounts = list(itertools.islice(itertools.cycle([10, 30, 60]), 9))
    assert most_in_a_window(let_through(RateLimiter(None, 100, window_seconds=0.2), amounts), amounts, 0.15) <= 100


def test_a_request_that_is_over_the_limit_by_itself_still_gets_its_turn() -> None:
    assert len(let_through(RateLimiter(None, 100, window_seconds=0.1), [500, 10])) == 2


@dataclass
class RatedServer:
    """A server that accepts so many requests in any second, asked as fast as a limiter allows, on a clock of its own."""

    rate: int
    now: float = 0.0
    accepted: list[float] = field(default_factory=list)
    rejections: list[float] = field(default_factory=list)

    def ask(self, limiter: RateLimiter, until: float) -> None:
        while self.now < until:
            found = limiter._try(1)
            if isinstance(found, float):
                self.now += found + 1e-4  # the time that a request travels
            elif sum(one > self.now - 1 for one in self.accepted) < self.rate:
                self.accepted.append(self.now)
                self.now += 1e-4
            else:
                self.rejections.append(self.now)
                limiter.rejected(found, 1.0)


def test_what_a_server_accepts_is_learned_from_its_first_rejection() -> None:
    server = RatedServer(20)
    limiter = RateLimiter(None, None, clock=lambda: server.now)
    server.ask(limiter, until=5)
    # 20 at once, a rejection and a second's pause; then 20 in each 1.05 s, and none is rejected.
    assert len(server.rejections) == 1
    assert most_in_a_window(server.accepted, [1] * len(server.accepted), 1.0) == 20
    assert len(server.accepted) == 20 * 5


def test_a_learned_limit_is_raised_when_nothing_is_rejected() -> None:
    server = RatedServer(20)
    limiter = RateLimiter(None, None, clock=lambda: server.now)
    server.ask(limiter, until=3)
    server.rate = 40
    server.ask(limiter, until=60)
    assert most_in_a_window(server.accepted[-200:], [1] * 200, 1.0) > 35
    # At a limit that stays, a raise costs a pause, and these become rare.
    server.rejections.clear()
    server.ask(limiter, until=160)
    assert len(server.rejections) < 12
    assert len([one for one in server.accepted if one > 60]) > 0.85 * 40 * 100


def test_a_rejection_for_want_of_anything_accepted_leaves_one_request_a_window() -> None:
    now = [0.0]
    limiter = RateLimiter(None, None, clock=lambda: now[0])
    slot = limiter._try(1)
    assert not isinstance(slot, float)
    limiter.rejected(slot, 2.0)
    assert limiter._try(1) == 2.0
    now[0] = 2.0
    assert not isinstance(limiter._try(1), float)
    assert limiter._try(1) == pytest.approx(2.0 * LEARNED_MARGIN)


def test_what_a_request_did_cost_counts() -> None:
    async def scenario() -> float:
        limiter = RateLimiter(None, 100, window_seconds=5)
        slot = await limiter.acquire(90)
        slot.tokens = 20
        began = time.monotonic()
        await limiter.acquire(70)
        return time.monotonic() - began

    assert asyncio.run(scenario()) < 4  # of the window's five seconds


def requests(number: int) -> list[Request]:
    return [Request((Message(role="user", content=str(n)),)) for n in range(number)]


def test_a_server_is_asked_as_slowly_as_the_config_says() -> None:
    times: list[float] = []

    def behave(_body, _number):
        times.append(time.monotonic())
        return completion("x")

    with FaultServer(behave) as server:
        chat = EndpointChat(server.config(), rate_limiter=RateLimiter(4, None, window_seconds=0.3))
        assert len(list(chat.answer(requests(10), SamplingParams(0.0, 4)))) == 10
    assert most_in_a_window(times, [1] * 10, 0.2) <= 4
    assert EndpointChat(server.config(requests_per_minute=7, tokens_per_minute=900))._server._rate_limiter._requests == 7


def test_all_wait_when_the_server_asks_one_to() -> None:
    times: list[float] = []

    def behave(_body, number):
        times.append(time.monotonic())
        return error(429, headers={"Retry-After": "1"}) if number == 0 else completion("x")

    with FaultServer(behave) as server:
        list(EndpointChat(server.config(concurrency=1)).answer(requests(1), SamplingParams(0.0, 4)))
        assert times[1] - times[0] >= 1
    times.clear()
    with FaultServer(behave) as server:
        assert len(list(EndpointChat(server.config(concurrency=4)).answer(requests(30), SamplingParams(0.0, 4)))) == 30
        assert sum(when < times[0] + 0.9 for when in times) <= 8  # what was sent before the answer to the first one came
