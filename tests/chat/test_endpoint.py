import asyncio
import email.utils
import math
import os
import signal
import threading
import time
import traceback

import pytest

from aligndistill.chat.endpoint import EndpointChat
from aligndistill.chat.http.rate_limit import RateLimiter
from aligndistill.chat.http.retries import retry_after_seconds, retrying
from aligndistill.chat.protocol import Answered, Request, SamplingParams
from aligndistill.config.models import EndpointModel
from aligndistill.errors import ConfigError, JudgeError
from aligndistill.records import Message, Usage
from tests.chat.fault_server import (
    FaultServer,
    after,
    completion,
    drip,
    error,
    half_a_body,
    html,
    reset,
    send,
    serve,
    together,
)

SAMPLING = SamplingParams(temperature=0.7, max_new_tokens=16, seed=3)
KEY = "sk-canary-7f3a9"
BROKEN_OFF = ("abort", "error", "insufficient_system_resource")


def say(text: str) -> tuple[Message, ...]:
    return (Message(role="user", content=text),)


def ask(server: FaultServer, requests: list[Request] | None = None, **settings: object) -> list[Answered]:
    return list(EndpointChat(server.config(**settings)).answer(requests or [Request(say("hello"))], SAMPLING))


# ------------------------------------------------------------------------------------------------------------- answers


def test_every_sample_is_one_request_with_the_plain_fields_and_comes_back_once() -> None:
    with FaultServer(lambda body, _: completion(body["messages"][-1]["content"].upper())) as server:
        system = (Message(role="system", content="be brief"), *say("one"))
        answers = ask(server, [Request(say("zero"), (0, 1, 2)), Request(system, (5,))])
    assert sorted((a.request, a.sample, a.reply.text) for a in answers) == [
        (0, 0, "ZERO"),
        (0, 1, "ZERO"),
        (0, 2, "ZERO"),
        (1, 5, "ONE"),
    ]
    assert all(a.reply.usage == Usage(calls=1, prompt_tokens=10, completion_tokens=2) for a in answers)
    assert all(a.reply.finish == "stop" for a in answers)
    # This server does not honour `n`: it is asked for several answers once, and one by one from then on.
    assert [body.pop("n") for body in server.bodies if "n" in body] == [3]
    for body in server.bodies:
        assert body.keys() == {"model", "messages", "temperature", "max_tokens", "seed"}
        assert (body["model"], body["temperature"], body["max_tokens"]) == ("teacher", 0.7, 16)
    assert [{"role": "system", "content": "be brief"}, {"role": "user", "content": "one"}] in [b["messages"] for b in server.bodies]


def test_the_seed_names_the_answer_whatever_is_asked_beside_it() -> None:
    def seeds(requests: list[Request], seed: int = 3) -> dict[str, int]:
        with serve(completion("x")) as server:
            list(EndpointChat(server.config(concurrency=1)).answer(requests, SamplingParams(1.0, 4, seed)))
            asked = [f"{r.messages[0].content}{s}" for r in requests for s in r.samples]
            return dict(zip(asked, [body["seed"] for body in server.bodies], strict=True))

    all_of_them = seeds([Request(say("a"), (0, 1)), Request(say("b"), (0, 1))])
    assert len(set(all_of_them.values())) == 4
    assert all(0 <= seed < 2**31 for seed in all_of_them.values())
    assert seeds([Request(say("b"), (1,))]) == {"b1": all_of_them["b1"]}
    assert seeds([Request(say("b"), (1,))], seed=4) != {"b1": all_of_them["b1"]}


@pytest.mark.parametrize(
    ("act", "text", "finish"),
    [
        *((completion("cut of", finish=reason), "cut of", "length") for reason in ("length", "max_tokens", "model_length")),
        (send(200, {"choices": [{"message": {"content": "bare"}}]}), "bare", "stop"),
        (send(200, {"choices": [{"message": {"content": "t"}}]}, content_type="text/plain"), "t", "stop"),
        (send(200, {"model": "another", "choices": [{"message": {"content": "t"}}]}), "t", "stop"),
        (send(200, {"choices": [{"message": {"content": "one"}}, {"message": {"content": "two"}}]}), "one", "stop"),
    ],
)
def test_odd_answers_are_taken_for_what_they_are(act, text: str, finish: str) -> None:
    with serve(act) as server:
        (answered,) = ask(server)
    assert (answered.reply.text, answered.reply.finish, answered.reply.problem) == (text, finish, "")
    assert answered.reply.usage.calls == 1


@pytest.mark.parametrize(
    ("act", "problem"),
    [
        (completion("blocked", finish="content_filter"), "content filter"),
        (completion(None), "no text"),
        (completion(None, finish="tool_calls"), "no text"),
        (send(200, {"choices": [{"message": {"content": "", "tool_calls": [{"id": "1"}]}}]}), "tool call"),
        (send(200, {"choices": [{"message": {"content": None, "refusal": "I cannot"}}]}), "refused by the model"),
        (send(200, {"choices": []}), "no choices"),
    ],
)
def test_what_is_no_answer_has_a_problem_and_is_not_asked_again(act, problem: str) -> None:
    with serve(act) as server:
        (answered,) = ask(server)
    assert problem in answered.reply.problem
    assert len(server.bodies) == 1


def test_no_more_requests_at_once_than_configured() -> None:
    with serve(together(3, completion("x"))) as server:
        assert len(ask(server, [Request(say(str(n))) for n in range(21)], concurrency=3)) == 21
        assert server.most_at_once == 3


def test_answers_stream_out_while_others_are_still_waited_for() -> None:
    release = threading.Event()

    def behave(body: dict, number: int):
        if body["messages"][0]["content"] == "slow":
            release.wait(10)
        return completion("x")

    with FaultServer(behave) as server:
        answers = EndpointChat(server.config()).answer([Request(say("slow")), Request(say("quick"))], SAMPLING)
        assert next(answers).request == 1
        release.set()
        assert next(answers).request == 0
        assert list(answers) == []


def test_works_where_an_event_loop_is_running_as_in_a_notebook() -> None:
    async def cell() -> list[Answered]:
        with serve(completion("x")) as server:
            return ask(server)

    assert [answered.reply.text for answered in asyncio.run(cell())] == ["x"]


def test_a_caller_that_does_not_read_holds_the_requests_back() -> None:
    with serve(completion("x")) as server:
        answers = EndpointChat(server.config(concurrency=4)).answer([Request(say(str(n))) for n in range(50)], SAMPLING)
        next(answers)
        time.sleep(0.3)
        assert len(server.bodies) == 4  # the four in flight; a killed process can lose no more than those
        answers.close()


def test_closing_the_iterator_cancels_the_rest_and_leaves_no_thread() -> None:
    with FaultServer(lambda _, number: completion("x") if number == 0 else after(30, completion("x"))) as server:
        answers = EndpointChat(server.config(concurrency=4)).answer([Request(say(str(n))) for n in range(50)], SAMPLING)
        next(answers)
        started = time.monotonic()
        answers.close()
        assert time.monotonic() - started < 15
        assert len(server.bodies) <= 5
    assert not [thread for thread in threading.enumerate() if thread.name == "calls in flight"]


# ------------------------------------------------------------------------------------------------------------ failures


FAILURES_THAT_PASS = {
    **{f"HTTP {status}": error(status) for status in (408, 409, 429, 500, 502, 503, 504, 529)},
    "HTML with status 502": html(502),
    "HTML with status 200": html(200),
    "empty body": send(200, b""),
    "error with status 200": send(200, {"error": {"message": "upstream"}}),
    "reset": reset,
    "half a body": half_a_body,
    "hang": after(3, completion("late")),
    "drip": drip,
}


def test_failures_that_pass_are_tried_again() -> None:
    asked: list[str] = []

    def behave(body: dict, _: int):
        failure = body["messages"][0]["content"]
        asked.append(failure)
        return FAILURES_THAT_PASS[failure] if asked.count(failure) == 1 else completion(f"good after {failure}")

    started = time.monotonic()
    with FaultServer(behave) as server:
        answers = ask(server, [Request(say(failure)) for failure in FAILURES_THAT_PASS], timeout_seconds=1, concurrency=16)
    assert time.monotonic() - started < 18  # the drip alone would take 20 s
    assert {answered.reply.text for answered in answers} == {f"good after {failure}" for failure in FAILURES_THAT_PASS}
    assert {failure: asked.count(failure) for failure in FAILURES_THAT_PASS} == dict.fromkeys(FAILURES_THAT_PASS, 2)


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (error(503, "overloaded"), "overloaded"),
        (html(200), "Welcome to the gateway"),
        (reset, "the connection failed"),
        *((completion("x", reason), rf"the server broke off \(finish_reason: {reason}\)") for reason in BROKEN_OFF),
        (after(3, completion("late")), r"no reply within 0\.3 s"),
    ],
)
def test_a_failure_that_stays_ends_with_the_servers_words_and_the_number_of_tries(act, words: str) -> None:
    with serve(act) as server, pytest.raises(JudgeError, match=rf"after 2 attempts: .*{words}") as caught:
        ask(server, timeout_seconds=0.3, max_retries=1)
    assert [body["messages"][0]["content"] for body in server.bodies] == ["hello"] * 2 + ["Say yes."] * 2
    assert server.base_url in str(caught.value)


def test_a_server_that_is_not_there() -> None:
    server = serve(completion("x"))
    server.close()
    with pytest.raises(JudgeError, match="after 1 attempts: the connection failed"):
        ask(server, max_retries=0)


@pytest.mark.parametrize(
    "act",
    [
        *(pytest.param(error(status, "not for you"), id=str(status)) for status in (302, 401, 402, 403, 404, 405, 410, 501)),
        pytest.param(error(429, "not for you", code="insufficient_quota"), id="quota"),
        pytest.param(error(429, "not for you: you exceeded your current quota"), id="quota in words"),
        pytest.param(error(400, "not for you", code="model_not_found"), id="no such model"),
        pytest.param(send(404, {"error": "not for you: model not found, try pulling it first"}), id="Ollama"),
        pytest.param(send(403, b"not for you", content_type="text/plain"), id="plain text"),
    ],
)
def test_what_no_request_will_change_ends_at_once_with_the_servers_words(act) -> None:
    with serve(act) as server, pytest.raises(JudgeError, match="not for you"):
        ask(server)
    assert len(server.bodies) == 1


REFUSALS = [
    *(pytest.param(error(status, "not for you"), id=str(status)) for status in (400, 413, 422)),
    pytest.param(send(422, {"detail": "not for you"}), id="not OpenAI's shape"),
    pytest.param(send(400, {"object": "error", "message": "not for you", "code": 400}), id="vLLM"),
    pytest.param(
        send(400, {"error": {"code": 400, "message": "not for you", "type": "exceed_context_size_error"}}), id="llama.cpp"
    ),
]


@pytest.mark.parametrize("act", REFUSALS)
def test_a_server_that_refuses_even_the_simplest_request_ends_the_run(act) -> None:
    with serve(act) as server, pytest.raises(JudgeError, match="not for you"):
        ask(server)
    assert [body["messages"][0]["content"] for body in server.bodies] == ["hello", "Say yes."]


@pytest.mark.parametrize("act", REFUSALS)
def test_a_rejected_request_is_logged_and_the_others_are_answered(act, caplog: pytest.LogCaptureFixture) -> None:
    with FaultServer(lambda body, _: act if body["messages"][0]["content"] == "bad" else completion("good")) as server:
        answers = ask(server, [Request(say("bad")), *[Request(say(str(n))) for n in range(5)]])
    replies = {answered.request: answered.reply for answered in answers}
    assert [replies[n].text for n in range(6)] == ["", *["good"] * 5]
    assert "not for you" in replies[0].problem
    assert not any(replies[n].problem for n in range(1, 6))
    assert "rejected request 0 (3 characters)" in caplog.text


def test_many_refusals_in_a_row_end_the_run_if_the_server_refuses_the_health_check_too() -> None:
    server = FaultServer(lambda _, number: completion("x") if number == 0 else error(400, "not for you"))
    with server, pytest.raises(JudgeError, match="The last 20 requests were rejected or failed"):
        ask(server, [Request(say(str(n))) for n in range(100)], concurrency=1)
    assert [body["messages"][0]["content"] for body in server.bodies] == [*map(str, range(21)), "Say yes."]


@pytest.mark.parametrize("concurrency", [1, 32])
def test_many_refusals_in_a_row_cost_a_health_check_each_20_and_nothing_else(concurrency: int) -> None:
    def behave(body: dict, _: int):
        return completion("x") if body["messages"][0]["content"] == "Say yes." else error(400, "not for you")

    with FaultServer(behave) as server:
        answers = ask(server, [Request(say(str(n))) for n in range(100)], concurrency=concurrency)
    assert len(answers) == 100
    assert all("not for you" in answered.reply.problem for answered in answers)
    assert sum(body["messages"][0]["content"] == "Say yes." for body in server.bodies) == 1 + 100 // 20


def test_a_server_that_stops_to_honour_n_is_asked_one_by_one_from_then_on() -> None:
    def behave(body: dict, number: int):
        if "n" in body and number > 1:
            return error(400, "n must be 1")
        return send(200, {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}] * body.get("n", 1)})

    with FaultServer(behave) as server:
        answers = ask(server, [Request(say(str(n)), (0, 1, 2)) for n in range(9)], concurrency=1)
    assert [answered.reply.text for answered in answers] == ["x"] * 27
    assert sum("n" in body for body in server.bodies) <= 4  # two are honoured, and the fourth was under way


def test_answers_that_came_before_a_refusal_are_not_lost() -> None:
    with serve(completion("a"), completion("b"), error(401)) as server:
        answers = EndpointChat(server.config(concurrency=1)).answer([Request(say(str(n))) for n in range(5)], SAMPLING)
        assert [next(answers).reply.text, next(answers).reply.text] == ["a", "b"]
        with pytest.raises(JudgeError):
            next(answers)


def test_retry_after_is_honoured() -> None:
    with serve(error(429, headers={"Retry-After": "1.5"}), completion("x")) as server:
        started = time.monotonic()
        ask(server)
    assert 1.5 <= time.monotonic() - started < 20


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("-3", 0.0),
        ("soon", None),
        ("nan", None),
        ("1e9", None),
        ("9" * 400, math.inf),
        (None, None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
    ],
)
def test_retry_after_in_its_forms(header: str | None, seconds: float | None) -> None:
    assert retry_after_seconds(header) == seconds


def test_retry_after_as_a_date_to_come() -> None:
    header = email.utils.formatdate(time.time() + 20, usegmt=True)
    assert retry_after_seconds(header) == pytest.approx(20, abs=2)


def test_a_wait_is_as_long_as_the_server_asks_and_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    waits: list[float] = []

    async def no_sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(RateLimiter, "pause", lambda _, seconds: waits.append(seconds))
    retry = retrying(3).copy(sleep=no_sleep)
    monkeypatch.setattr("aligndistill.chat.http.client.retrying", lambda _: retry)
    with serve(*[error(429, headers={"Retry-After": "300"})] * 3, completion("x")) as server:
        assert ask(server)[0].reply.text == "x"
    assert waits == [300.0] * 6  # by the request itself and by all, in three tries
    told = [record.getMessage() for record in caplog.records if "300 s" in record.getMessage()]
    assert len(told) == 1
    assert server.base_url in told[0]


@pytest.mark.parametrize(
    "header", ["901", "9" * 400, email.utils.formatdate(time.time() + 7200, usegmt=True)], ids=["over", "huge", "date"]
)
def test_a_longer_wait_than_a_run_waits_is_an_error_that_says_so(header: str) -> None:
    with serve(error(429, headers={"Retry-After": header})) as server, pytest.raises(JudgeError) as failure:
        ask(server)
    assert len(server.bodies) == 1
    assert server.base_url in str(failure.value)
    assert f"longer than 15 minutes, the most that a run waits (Retry-After: {header[:40]})" in str(failure.value)
    assert "Run the same command again after that time to resume." in str(failure.value)


def test_an_interrupt_ends_a_long_wait() -> None:
    def behave(body: dict, number: int):
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        return error(429, headers={"Retry-After": "600"})

    with FaultServer(behave) as server, pytest.raises(KeyboardInterrupt):
        ask(server)
    assert len(server.bodies) == 1
    assert not [thread for thread in threading.enumerate() if thread.name == "calls in flight"]


# ---------------------------------------------------------------------------------------------------- keys and addresses


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("TEACHER_KEY", KEY + "\n")
    return "TEACHER_KEY"


def test_the_key_is_sent(key: str) -> None:
    with serve(completion("x")) as server:
        ask(server, api_key_env=key)
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"


def test_without_api_key_env_nothing_from_the_environment_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(variable, KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/elsewhere")
    with serve(completion("x")) as server:
        ask(server)
    assert KEY not in str(server.headers)


@pytest.mark.parametrize(
    "act",
    [
        error(401, f"Incorrect API key provided: {KEY}"),
        error(400, f"bad {KEY}"),
        error(500, f"crashed with {KEY}"),
        error(500, "x" * 495 + KEY),
        send(200, f"<html>{KEY}</html>".encode(), content_type="text/html"),
        reset,
    ],
)
def test_the_key_is_in_no_text(act, key: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    with serve(act) as server:
        chat = EndpointChat(server.config(api_key_env=key, max_retries=0))
        with pytest.raises(JudgeError) as caught:
            list(chat.answer([Request(say("x"))], SAMPLING))
    texts = ["".join(traceback.format_exception(caught.value)), repr(chat), chat.identity, caplog.text]
    chained: BaseException | None = caught.value
    while chained is not None:
        texts.append(f"{chained} {chained!r} {vars(chained)}")
        chained = chained.__context__ or chained.__cause__
    assert KEY[:12] not in "\n".join(texts)


@pytest.mark.parametrize("value", [None, "", "  \n", "sk-ключ", "sk\x07"])
def test_a_key_that_is_missing_or_impossible_is_named_by_its_variable(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEACHER_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("TEACHER_KEY", value)
    with pytest.raises(ConfigError, match="TEACHER_KEY") as caught:
        EndpointChat(EndpointModel(kind="endpoint", base_url="http://127.0.0.1:1/v1", name="t", api_key_env="TEACHER_KEY"))
    assert "sk" not in str(caught.value)


def test_identity_names_server_and_model() -> None:
    def identity(base_url: str, name: str) -> str:
        return EndpointChat(EndpointModel(kind="endpoint", base_url=base_url, name=name)).identity

    assert len({identity(url, name) for url in ("http://a/v1", "http://a/v1/", "http://b/v1") for name in "mn"}) == 4
