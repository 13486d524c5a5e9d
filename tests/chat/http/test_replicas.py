"""Several servers with the same model."""

import itertools
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from aligndistill.chat.endpoint import EndpointChat
from aligndistill.chat.http import replicas
from aligndistill.chat.http.replicas import REST_SECONDS, Replicas
from aligndistill.chat.protocol import Request, SamplingParams
from aligndistill.commands.server_checks import server_findings
from aligndistill.config.models import EndpointModel
from aligndistill.config.run import RunConfig
from aligndistill.errors import JudgeError
from aligndistill.records import Message
from tests.chat.fault_server import Act, FaultServer, after, completion, error, reset, serve

SAMPLING = SamplingParams(0.0, 4)


def requests(count: int) -> list[Request]:
    return [Request((Message(role="user", content=str(number)),)) for number in range(count)]


def config(*urls: str, **settings: Any) -> EndpointModel:
    return EndpointModel(kind="endpoint", base_url=list(urls), name="teacher", **{"timeout_seconds": 10, **settings})


def asked(*servers: FaultServer) -> Counter[str]:
    return Counter(body["messages"][0]["content"] for server in servers for body in server.bodies)


class Dying(FaultServer):
    """Answers some requests, and then breaks off every connection until it is `up` again."""

    def __init__(self, answers: int) -> None:
        self.up = False
        self.broken = 0
        self.back: list[str] = []
        lock = threading.Lock()

        def behave(body: dict[str, Any], number: int) -> Act:
            def act(handler: BaseHTTPRequestHandler) -> None:
                with lock:
                    works = self.up or number < answers
                    self.broken += not works
                if self.up:
                    self.back.append(body["messages"][0]["content"])
                (after(0.01, completion("A")) if works else reset)(handler)

            return act

        super().__init__(behave)


def test_one_of_two_dies_and_nothing_is_lost_or_asked_twice_beyond_what_was_in_flight() -> None:
    concurrency = 8
    with Dying(answers=10) as dying, FaultServer(lambda body, number: after(0.01, completion("A"))) as healthy:
        chat = EndpointChat(config(dying.base_url, healthy.base_url, concurrency=concurrency))
        answers = list(chat.answer(requests(100), SAMPLING))
        assert sorted(answer.request for answer in answers) == list(range(100))
        assert all((answer.reply.text, answer.reply.problem) == ("A", "") for answer in answers)
        assert asked(dying, healthy).total() == 100 + dying.broken
        assert 1 <= dying.broken <= concurrency


def test_one_that_comes_back_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "REST_SECONDS", 0.05)
    with Dying(answers=4) as dying, FaultServer(lambda body, number: after(0.02, completion("A"))) as healthy:
        chat = EndpointChat(config(dying.base_url, healthy.base_url, concurrency=4))
        read = 0
        for answer in chat.answer(requests(120), SAMPLING):
            assert not answer.reply.problem
            read += 1
            dying.up = read > 40
        assert read == 120
        assert len(dying.back) > 20


def test_all_that_die_end_the_run_and_are_named() -> None:
    with serve(reset) as one, serve(reset) as other:
        chat = EndpointChat(config(one.base_url, other.base_url, max_retries=1))
        with pytest.raises(JudgeError, match=str(one.port)):
            list(chat.answer(requests(3), SAMPLING))


def test_a_slow_server_gets_fewer_requests() -> None:
    with (
        FaultServer(lambda body, number: after(0.2, completion("A"))) as slow,
        FaultServer(lambda body, number: after(0.01, completion("A"))) as fast,
    ):
        chat = EndpointChat(config(slow.base_url, fast.base_url, concurrency=4))
        assert len(list(chat.answer(requests(100), SAMPLING))) == 100
        assert len(fast.bodies) > 4 * len(slow.bodies) > 0
        assert slow.most_at_once <= 3


def test_too_many_requests_are_no_failure_of_the_server() -> None:
    with serve(error(429, headers={"Retry-After": "0"}), completion("A")) as one, serve(completion("A")) as other:
        first, second = sorted((one, other), key=lambda server: server.base_url)
        chat = EndpointChat(config(one.base_url, other.base_url, concurrency=1))
        assert len(list(chat.answer(requests(5), SAMPLING))) == 5
        assert (len(first.bodies), len(second.bodies)) == (6 if first is one else 5, 0)


# -------------------------------------------------------------------------------------------------------------- choosing


@pytest.fixture
def clock() -> list[float]:
    return [100.0]


def test_the_fewest_in_flight_and_among_equals_the_first(clock: list[float]) -> None:
    three = Replicas(3, lambda: clock[0])
    assert [three.begin() for _ in range(4)] == [0, 1, 2, 0]
    three.end(1, failed=False)
    assert [three.begin(), three.begin()] == [1, 1]


def test_one_that_failed_rests_and_if_all_do_the_longest(clock: list[float]) -> None:
    two = Replicas(2, lambda: clock[0])
    two.end(two.begin(), failed=True)
    assert two.another()
    assert [two.begin(), two.begin()] == [1, 1]
    clock[0] += 1
    two.end(1, failed=True)
    assert not two.another()
    assert two.begin() == 0
    clock[0] += REST_SECONDS
    assert two.another()


# -------------------------------------------------------------------------------------------------------------- identity


def test_a_list_is_one_model_whatever_its_order() -> None:
    urls = ["http://a:1/v1", "http://b:2/v1/", "http://c:3/v1"]
    identities = {config(*order).identity for order in itertools.permutations(urls)}
    assert identities == {"endpoint http://a:1/v1,http://b:2/v1,http://c:3/v1 teacher"}
    assert all(config(*order) == config(*urls) for order in itertools.permutations(urls))
    alone = EndpointModel(kind="endpoint", base_url="http://a:1/v1", name="teacher", timeout_seconds=10)
    assert config("http://a:1/v1", "http://a:1/v1/") == alone
    assert alone.identity == "endpoint http://a:1/v1 teacher"


@pytest.mark.parametrize("urls", [[], ["gpu7"], ["http://h/v1", "http://me:pass@h/v1"]])
def test_each_of_a_list_is_checked(urls: list[str]) -> None:
    with pytest.raises(ValidationError):
        config(*urls)


def test_doctor_asks_each(tmp_path: Path) -> None:
    with serve(completion("A")) as one, serve(completion("A")) as other, serve(completion(None, "length")) as odd:
        found = list(server_findings(run_config(one.base_url, other.base_url)))
        assert all(finding.passed for finding in found)
        assert {url in finding.found for url in (one.base_url, other.base_url) for finding in found[:2]} == {True, False}
        assert found[-1].found.startswith("does not prefer the right answer: see by")  # "A" in both orders
        found = list(server_findings(run_config(one.base_url, "http://127.0.0.1:9/v1")))
        assert any("127.0.0.1:9" in finding.found and not finding.passed for finding in found)
        found = list(server_findings(run_config(one.base_url, odd.base_url)))
        assert any("but not as" in finding.found and not finding.passed for finding in found)


def run_config(*urls: str) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "doctor",
            "prompts": {"source": {"path": "prompts.jsonl"}},
            "start": {"model": "./start"},
            "judge": {"kind": "pairwise", "model": {"kind": "endpoint", "base_url": urls, "name": "tiny"}},
            "students": {},
        }
    )
