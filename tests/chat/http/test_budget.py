"""The budget holds with many requests in flight, over restarts and for several processes at once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aligndistill.chat.endpoint import EndpointChat
from aligndistill.chat.protocol import Request, SamplingParams
from aligndistill.config.budget import Budget, Price
from aligndistill.config.models import EndpointModel
from aligndistill.errors import BudgetError
from aligndistill.records import Message
from aligndistill.runs.servers import SPENT, Endpoints, spent_so_far
from aligndistill.store.append_log import AppendLog
from tests.chat.fault_server import FaultServer, after, completion, error, send, serve


def requests(number: int) -> list[Request]:
    return [Request((Message(role="user", content=f"{n:>30}"),)) for n in range(number)]  # 14 tokens by our own count


def opened(endpoints: Endpoints, config: EndpointModel) -> EndpointChat:
    """As a run opens it, but without the first question to every server."""
    chat = endpoints.open(config)
    chat._capabilities.confirmed = True
    return chat


def ask(server: FaultServer, folder: Path, budget: Budget, number: int = 50, **settings: object) -> tuple[int, str]:
    """How many answers came, and the budget's error."""
    answers = 0
    try:
        chat = opened(Endpoints(folder, budget), server.config(**settings))
        for _ in chat.answer(requests(number), SamplingParams(0.0, 6)):
            answers += 1
    except BudgetError as stopped:
        return answers, str(stopped)
    return answers, ""


@pytest.mark.parametrize("concurrency", [1, 8, 64])
def test_no_request_more_and_every_answer_that_was_paid_for(tmp_path: Path, concurrency: int) -> None:
    with serve(after(0.02, completion("x"))) as server:
        answers, words = ask(server, tmp_path, Budget(requests=17), concurrency=concurrency)
        assert (answers, len(server.bodies)) == (17, 17)
        assert "17 requests of 17 requests" in words
        assert "budget.requests" in words
        assert ask(server, tmp_path, Budget(requests=17)) == (0, words)  # another process would be told the same
        answers, _ = ask(server, tmp_path, Budget(requests=20))
        assert (answers, len(server.bodies)) == (3, 20)


def test_tokens_are_what_the_server_says_and_never_more_than_the_limit(tmp_path: Path) -> None:
    with serve(completion("x")) as server:  # 12 tokens each, and 20 are held back for each: 14 and 6
        answers, words = ask(server, tmp_path, Budget(tokens=100))
    assert answers == 7  # 84 are spent; one more might bring them to 104
    assert "84 tokens of 100 tokens" in words


def test_money_by_the_price_of_the_model(tmp_path: Path) -> None:
    budget = Budget(usd=0.001, prices={"teacher": Price(prompt=5.0, completion=50.0)})
    with serve(completion("x")) as server:  # (10 * 5 + 2 * 50) / 1e6 = 0.00015 each; 14 * 5 + 6 * 50 = 0.00037 held back
        answers, words = ask(server, tmp_path, budget)
    assert answers == 5
    assert "0.00075 USD of 0.001 USD" in words
    assert sum(one.usd for one in spent_so_far(tmp_path)) == pytest.approx(0.00075)


def test_a_server_that_does_not_say_what_it_used_is_charged_by_our_count(tmp_path: Path) -> None:
    with serve(send(200, {"choices": [{"message": {"content": "words words"}}]})) as server:
        answers, _ = ask(server, tmp_path, Budget(tokens=100))
    assert answers == 5  # 14 + 6 each


def test_tries_are_counted_too(tmp_path: Path) -> None:
    with FaultServer(lambda _, number: error(503, headers={"Retry-After": "0"}) if number % 2 == 0 else completion("x")) as server:
        answers, _ = ask(server, tmp_path, Budget(requests=10), concurrency=1)
    assert (answers, len(server.bodies)) == (5, 10)


@pytest.mark.process
def test_what_was_spent_before_a_kill_is_spent(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from aligndistill.chat.protocol import SamplingParams
from aligndistill.config.models import EndpointModel
from aligndistill.config.models import EndpointModel
from aligndistill.config.budget import Budget
from aligndistill.runs.servers import Endpoints
from tests.chat.http.test_budget import requests
model = EndpointModel(kind="endpoint", base_url=sys.argv[1], name="teacher", concurrency=1)
list(Endpoints(Path(sys.argv[2]), Budget(requests=30)).open(model).answer(requests(100), SamplingParams(0.0, 6)))
"""
    with serve(after(0.02, completion("x"))) as server:
        command = [sys.executable, "-c", code, server.base_url, str(tmp_path)]
        process = subprocess.Popen(command, cwd=Path(__file__).parents[3])
        while len(server.bodies) < 12:
            assert process.poll() is None
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(0.1)
        sent = len(server.bodies)
        written = sum(one.requests for one in spent_so_far(tmp_path))
        assert sent - 1 <= written <= sent  # the one that was under way
        answers, _ = ask(server, tmp_path, Budget(requests=30))
        assert answers == 30 - written


def test_processes_share_one_budget(tmp_path: Path) -> None:
    with serve(completion("x")) as server:
        one, other = Endpoints(tmp_path, Budget(requests=20)), Endpoints(tmp_path, Budget(requests=20))
        counts = [0, 0]
        chats = [
            iter(endpoints.open(server.config(concurrency=1)).answer(requests(50), SamplingParams(0.0, 6)))
            for endpoints in (one, other)
        ]
        stopped = False
        while not stopped:
            for number, chat in enumerate(chats):
                try:
                    next(chat)
                    counts[number] += 1
                except BudgetError:
                    stopped = True
    assert len(server.bodies) <= 21  # each may have one under way that the other does not see
    assert min(counts) >= 8


def test_a_torn_line_is_skipped(tmp_path: Path) -> None:
    ledger = AppendLog(tmp_path / SPENT)
    ledger.add({"requests": 1})
    ledger.add({"requests": 2})
    content = (tmp_path / SPENT).read_bytes()
    (tmp_path / SPENT).write_bytes(content[:-4])
    again = AppendLog(tmp_path / SPENT)
    again.add({"requests": 4})
    assert [entry["requests"] for entry in again.read_new()] == [1, 4]
    assert list(again.read_new()) == []


def test_an_unlimited_budget_still_writes_down_what_was_spent(tmp_path: Path) -> None:
    with serve(completion("x")) as server:
        assert ask(server, tmp_path, Budget(), number=5) == (5, "")
    spent = spent_so_far(tmp_path)
    assert (len(spent), sum(one.tokens for one in spent), {one.model for one in spent}) == (5, 60, {"teacher"})
    assert all(0 < one.seconds < 5 for one in spent)


def test_the_budget_is_shared_by_all_servers_of_a_run(tmp_path: Path) -> None:
    with serve(completion("x")) as one, serve(completion("y")) as other:
        endpoints = Endpoints(tmp_path, Budget(requests=5))
        assert len(list(opened(endpoints, one.config()).answer(requests(3), SamplingParams(0.0, 6)))) == 3
        with pytest.raises(BudgetError):
            list(opened(endpoints, other.config()).answer(requests(3), SamplingParams(0.0, 6)))
    assert (len(one.bodies), len(other.bodies)) == (3, 2)
