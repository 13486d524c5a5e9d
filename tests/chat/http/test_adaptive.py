"""The number of requests in flight, against servers in simulated time."""

import heapq
import itertools
import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler

import pytest

from aligndistill.chat.endpoint import EndpointChat
from aligndistill.chat.http.adaptive import START, AdaptiveLimit, FixedLimit, limit_of
from aligndistill.chat.protocol import Request, SamplingParams
from aligndistill.records import Message
from tests.chat.fault_server import Act, FaultServer, after, completion, error

LATENCY_SECONDS = 0.2


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@dataclass
class Server:
    """Computes as many requests at a time as it has places; others wait in its queue, or are refused if there is none."""

    places: int
    queues: bool = True
    latency_seconds: Callable[[float], float] = lambda now: LATENCY_SECONDS


def limits(server: Server, requests: int, clock: Clock, limit: AdaptiveLimit | FixedLimit) -> Iterator[int]:
    """Send requests, as many at a time as the limit says, and yield the limit after each one that was answered."""
    chance = random.Random(0)
    number = itertools.count()
    computed: list[tuple[float, int, float, bool]] = []  # when it ends, and when it began
    free_at = [0.0] * server.places
    sent = answered = 0
    while answered < requests:
        while sent < requests and len(computed) < limit.current:
            began = limit.began()
            busy = sum(when > clock.seconds for when in free_at)
            if busy == server.places and not server.queues:
                heapq.heappush(computed, (clock.seconds + 0.01, next(number), began, False))
            else:
                place = min(range(server.places), key=free_at.__getitem__)
                starts = max(free_at[place], clock.seconds)
                free_at[place] = starts + server.latency_seconds(starts) * chance.uniform(0.8, 1.2)
                heapq.heappush(computed, (free_at[place], next(number), began, True))
            sent += 1
        clock.seconds, _, began, good = heapq.heappop(computed)
        clock.seconds += 1e-9
        if good:
            answered += 1
        else:
            sent -= 1
        limit.ended(began, overloaded=not good, answered=good)
        yield limit.current


def seconds(server: Server, requests: int, fixed: int | None = None) -> float:
    clock = Clock()
    limit = AdaptiveLimit(clock) if fixed is None else FixedLimit(fixed)
    for _ in limits(server, requests, clock, limit):
        pass
    return clock.seconds


def trace(server: Server, requests: int) -> list[int]:
    clock = Clock()
    return list(limits(server, requests, clock, AdaptiveLimit(clock)))


@pytest.mark.parametrize("places", [4, 32, 256])
def test_it_is_about_as_fast_as_the_better_of_few_and_many(places: int) -> None:
    requests = 100 * places
    best = min(seconds(Server(places), requests, fixed) for fixed in (8, 64))
    assert seconds(Server(places), requests) < 1.15 * best


@pytest.mark.parametrize("places", [4, 32, 256])
def test_it_settles_where_more_do_not_raise_the_throughput(places: int) -> None:
    settled = trace(Server(places), 150 * places)[-50 * places :]
    at_rest = sorted(settled)[len(settled) // 2]
    assert places <= at_rest <= 2 * max(places, START)


def test_it_begins_with_eight_and_doubles() -> None:
    seen = trace(Server(256), 1000)
    assert [limit for limit, _ in itertools.groupby(seen)][:5] == [8, 16, 32, 64, 128]


def test_a_server_that_refuses_is_asked_less_and_is_full_most_of_the_time() -> None:
    seen = trace(Server(12, queues=False), 2000)
    assert max(seen[500:]) <= 32
    assert 6 <= sorted(seen)[len(seen) // 2] <= 24
    assert seconds(Server(12, queues=False), 2000) < 1.3 * 2000 / 12 * LATENCY_SECONDS


def test_one_overload_halves_it_once_however_many_requests_see_it() -> None:
    clock = Clock()
    limit = AdaptiveLimit(clock)
    places = [limit.began() for _ in range(8)]
    clock.seconds = 1.0
    for place in places:
        limit.ended(place, overloaded=True, answered=False)
    assert limit.current == 4


def test_it_never_falls_below_one_request() -> None:
    clock = Clock()
    limit = AdaptiveLimit(clock)
    for _ in range(10):
        place = limit.began()
        clock.seconds += 1.0
        limit.ended(place, overloaded=True, answered=False)
    assert limit.current == 1


def test_latency_that_doubles_at_the_same_limit_halves_it() -> None:
    clock = Clock()
    limit = AdaptiveLimit(clock)
    in_flight: deque[float] = deque()

    def answer(count: int, base_seconds: float) -> list[int]:
        """A server that takes longer the more requests it has, from 16 on."""
        seen = []
        for _ in range(count):
            while len(in_flight) < limit.current:
                in_flight.append(limit.began())
            clock.seconds += base_seconds * max(len(in_flight), 16) / 16 / len(in_flight)
            limit.ended(in_flight.popleft())
            seen.append(limit.current)
        return seen

    settled = answer(300, 0.2)[-1]
    assert settled == 16
    assert min(answer(4 * settled, 0.5)) == settled // 2


def test_fewer_requests_than_the_limit_are_no_reason_to_change_it() -> None:
    clock = Clock()
    limit = AdaptiveLimit(clock)
    for _ in range(500):
        place = limit.began()
        clock.seconds += 0.1
        limit.ended(place)
    assert limit.current == START


def test_it_recovers_after_an_overload_that_has_passed() -> None:
    clock = Clock()
    limit = AdaptiveLimit(clock)
    for _ in limits(Server(32), 1000, clock, limit):
        pass
    before = limit.current
    place = limit.began()
    clock.seconds += 0.1
    limit.ended(place, overloaded=True, answered=False)
    assert limit.current < before
    for _ in limits(Server(32), 2000, clock, limit):
        pass
    assert limit.current >= 32


def test_a_number_in_the_config_stays_as_it_is() -> None:
    limit = limit_of(5)
    for _ in range(50):
        limit.ended(limit.began(), overloaded=True, answered=False)
    assert limit.current == 5


# ------------------------------------------------------------------------------------------------------- against real servers


def requests(count: int) -> list[Request]:
    return [Request((Message(role="user", content=str(number)),)) for number in range(count)]


def test_a_server_that_can_take_more_gets_more() -> None:
    with FaultServer(lambda body, number: after(0.05, completion("A"))) as server:
        assert len(list(EndpointChat(server.config()).answer(requests(250), SamplingParams(0.0, 4)))) == 250
        assert server.most_at_once > START


def test_a_server_that_answers_429_gets_fewer_and_every_request_is_answered() -> None:
    begun, ended = itertools.count(), [0]

    def behave(body: object, number: int) -> Act:
        def act(handler: BaseHTTPRequestHandler) -> None:
            too_many = next(begun) - ended[0] > 3
            try:
                (error(429, "too many") if too_many else after(0.02, completion("A")))(handler)
            finally:
                ended[0] += 1

        return act

    with FaultServer(behave) as server:
        chat = EndpointChat(server.config(max_retries=8))
        answers = list(chat.answer(requests(60), SamplingParams(0.0, 4)))
    assert len(answers) == 60
    assert all(not answer.reply.problem for answer in answers)
    assert chat._in_flight() < START


def test_a_429_that_says_how_long_to_wait_lowers_the_rate_and_not_what_is_in_flight() -> None:
    times: list[float] = []

    def behave(body: object, number: int) -> Act:
        now = time.monotonic()
        if sum(one > now - 1 for one in times) >= 30:
            return error(429, "too many", headers={"Retry-After": "1"})
        times.append(now)
        return completion("A")

    with FaultServer(behave) as server:
        chat = EndpointChat(server.config(max_retries=8))
        answers = list(chat.answer(requests(90), SamplingParams(0.0, 4)))
    assert all(not answer.reply.problem for answer in answers)
    assert chat._in_flight() >= START
    assert chat._server._rate_limiter._learned is not None


def test_what_is_unread_counts_as_in_flight() -> None:
    """A kill loses no more than the limit, however slow the reader is."""
    with FaultServer(lambda body, number: after(0.01, completion("A"))) as server:
        chat = EndpointChat(server.config())
        for read, _ in enumerate(chat.answer(requests(60), SamplingParams(0.0, 4))):
            time.sleep(0.01)
            assert len(server.bodies) - read <= chat._in_flight()
