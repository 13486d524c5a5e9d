import math

import pytest

from aligndistill.chat.endpoint import EndpointChat
from aligndistill.chat.http.wire import TokenLogprob, label_logprobs
from aligndistill.records import Message, Usage
from tests.chat.fault_server import FaultServer, completion, error, send, serve


def say(text: str) -> tuple[Message, ...]:
    return (Message(role="user", content=text),)


def ask_labels(server: FaultServer, conversations: int = 3):
    chat = EndpointChat(server.config())
    answers = list(chat.label_logprobs([say(str(n)) for n in range(conversations)], ("A", "B")))
    return chat, sorted(answers, key=lambda answer: answer.request)


def test_label_logprobs_are_read_off_the_first_token() -> None:
    with serve(completion("A", probabilities={"A": 0.5, " A": 0.1, "B": 0.25})) as server:
        _, answers = ask_labels(server)
    assert [answer.request for answer in answers] == [0, 1, 2]
    for answer in answers:
        assert answer.logprobs == pytest.approx((math.log(0.6), math.log(0.25)))
        assert answer.usage == Usage(calls=1, prompt_tokens=10, completion_tokens=2)
    for body in server.bodies:
        assert (body["max_tokens"], body["temperature"], body["logprobs"], body["top_logprobs"]) == (1, 0.0, True, 20)


def test_an_empty_block_that_the_request_began_with_is_none_of_the_answer() -> None:
    """llama.cpp returns the text that a request begins the answer with, without log-probabilities for it."""
    with serve(completion("<think>\n\n</think>\n\nA", probabilities={"A": 0.5, "B": 0.25})) as server:
        _, answers = ask_labels(server, 1)
    assert answers[0].logprobs == pytest.approx((math.log(0.5), math.log(0.25)))
    with serve(completion("<think>\n\n</think>\n\nA", probabilities={"<think>": 0.5, "A": 0.25})) as server:
        _, answers = ask_labels(server, 1)
    assert answers[0].logprobs is None


@pytest.mark.parametrize(
    "act",
    [
        completion("A"),
        send(200, {"choices": [{"message": {"content": "A"}, "logprobs": {"content": None}}]}),
        send(200, {"choices": [{"message": {"content": "A"}, "logprobs": {"content": [{"token": "A", "top_logprobs": []}]}}]}),
        send(200, {"choices": [{"message": {"content": "A"}, "logprobs": {"tokens": ["A"], "token_logprobs": [-0.1]}}]}),
    ],
    ids=["ignored", "null", "no top tokens", "another form"],
)
def test_a_server_without_logprobs_is_asked_once(act) -> None:
    with serve(act) as server:
        chat, answers = ask_labels(server)
        assert [answer.logprobs for answer in answers] == [None] * 3
        assert [answer.usage.calls for answer in answers] == [1, 0, 0]
        again = list(chat.label_logprobs([say("x")], ("A", "B")))
        assert [(answer.logprobs, answer.usage) for answer in again] == [(None, Usage())]
    assert len(server.bodies) == 1


def test_a_server_that_allows_five_is_asked_for_five() -> None:
    def behave(body: dict, _: int):
        return completion("A", probabilities={"A": 0.8, "B": 0.2}) if body["top_logprobs"] == 5 else error(400, "max 5")

    with FaultServer(behave) as server:
        _, answers = ask_labels(server)
    assert all(answer.logprobs == pytest.approx((math.log(0.8), math.log(0.2))) for answer in answers)
    assert [body["top_logprobs"] for body in server.bodies] == [20, 5, 5, 5]
    assert [answer.usage.calls for answer in answers] == [2, 1, 1]


@pytest.mark.parametrize("status", [400, 422])
def test_a_server_that_refuses_logprobs_is_not_asked_again(status: int) -> None:
    with serve(error(status)) as server:
        _, answers = ask_labels(server)
    assert [answer.logprobs for answer in answers] == [None] * 3
    assert [answer.usage.calls for answer in answers] == [2, 0, 0]
    assert len(server.bodies) == 2


def test_one_answer_without_a_label_does_not_end_the_run() -> None:
    def behave(body: dict, _: int):
        unsure = body["messages"][0]["content"] == "0"
        return completion("The", "stop", {"The": 0.9}) if unsure else completion("A", "stop", {"A": 0.9, "B": 0.1})

    with FaultServer(behave) as server:
        _, answers = ask_labels(server)
    assert answers[0].logprobs is None
    assert answers[1].logprobs == answers[2].logprobs == pytest.approx((math.log(0.9), math.log(0.1)))


@pytest.mark.parametrize(
    ("tokens", "labels", "expected"),
    [
        # The list leaves 0.03 over, and shows none smaller than 0.02.
        ({"A": 0.95, "x": 0.02}, "AB", (0.95, 0.02)),
        ({"A": 0.95, "x": 0.04}, "AB", (0.95, 0.01)),
        ({"a": 0.9, "Answer": 0.1}, "AB", None),
        ({"1": 0.1, "7": 0.6, "10": 0.3}, ("1", "7", "10"), (0.1, 0.6, 0.3)),
        # "1" may be the beginning of "10", and too likely to be left open; then so unlikely that it does not matter.
        ({"1": 0.3, "7": 0.7}, ("1", "7", "10"), None),
        ({"1": 0.0005, "7": 0.9995 - 2e-4}, ("1", "7", "10"), (0.0005, 0.9993, 2e-4)),
    ],
)
def test_labels_from_tokens(tokens: dict[str, float], labels: str, expected: tuple[float, ...] | None) -> None:
    found = label_logprobs([TokenLogprob(token=t, logprob=math.log(p)) for t, p in tokens.items()], tuple(labels))
    assert (found and tuple(map(math.exp, found))) == (expected and pytest.approx(expected))


def test_certainty_stays_finite() -> None:
    found = label_logprobs([TokenLogprob(token="A", logprob=0.0), TokenLogprob(token="B", logprob=-math.inf)], ("A", "B"))
    assert found is not None
    assert found[0] == 0.0
    assert -1000 < found[1] < -700
