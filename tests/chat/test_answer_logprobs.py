"""How likely a server finds given answers: a reply about other tokens is an error, and a busy server is asked again."""

from collections.abc import Callable
from typing import Any

import pytest
import tenacity
import torch

from aligndistill.chat.answer_logprobs import AnswerLogprobs
from aligndistill.chat.endpoint import EndpointChat
from aligndistill.chat.http import retries
from aligndistill.config.models import EndpointModel
from aligndistill.errors import JudgeError
from tests.chat.fault_server import Act, error, html, reset, send
from tests.tiny_models import tiny_model
from tests.training.on_policy.teacher_server import Scored, TeacherServer


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "_backoff", tenacity.wait_fixed(0.01))


def asking(config: EndpointModel) -> AnswerLogprobs:
    return AnswerLogprobs(EndpointChat(config).server)


def change(place: int, value: Any) -> Callable[[Scored], object]:
    """Another log-probability of the token at a place."""

    def spoil(choice: Scored) -> None:
        for entry in choice["prompt_logprobs"][place].values():
            entry["logprob"] = value

    return spoil


def shift(choice: Scored) -> None:
    """The right number of entries, each one place too late."""
    entries = choice["prompt_logprobs"]
    choice["prompt_logprobs"] = [None, entries[1], *entries[1:-1]]


SPOILT: dict[str, tuple[Callable[[Scored], object], str]] = {
    "shifted": (shift, r"the log-probability of token 6 at place 2, where token 7 was sent"),
    "short": (lambda choice: choice["prompt_logprobs"].pop(), r"4 prompt_logprobs for 5 tokens"),
    "long": (lambda choice: choice["prompt_logprobs"].append(None), r"6 prompt_logprobs for 5 tokens"),
    "an empty entry": (
        lambda choice: choice["prompt_logprobs"][3].clear(),
        r"no log-probability at place 3, where token 8 was sent",
    ),
    "a missing entry": (
        lambda choice: choice["prompt_logprobs"].__setitem__(4, None),
        r"no log-probability at place 4, where token 9 was sent",
    ),
    "other tokens": (
        lambda choice: choice["prompt_token_ids"].insert(0, 1),
        r"prompt_token_ids \[1, 5, 6, 7, 8, 9\], where \[5, 6",
    ),
    "none": (
        lambda choice: choice.pop("prompt_logprobs"),
        r"no prompt_logprobs\. The server must give prompt_logprobs for token ids",
    ),
    "nan": (change(3, float("nan")), r"the log-probability nan of token 8 at place 3"),
    "null": (change(3, None), r"the log-probability None of token 8 at place 3"),
    "inf": (change(3, float("inf")), r"the log-probability inf of token 8 at place 3"),
    "raw logits": (change(3, 7.5), r"the log-probability 7\.5 of token 8 at place 3"),
}


@pytest.mark.parametrize("spoilt", SPOILT)
def test_what_is_not_about_the_tokens_that_were_sent_is_an_error_that_says_what_came_back(spoilt: str) -> None:
    spoil, words = SPOILT[spoilt]
    with TeacherServer(tiny_model(seed=1), spoil=spoil) as server:
        with pytest.raises(JudgeError, match=rf"^endpoint {server.base_url} teacher answered with {words}") as raised:
            asking(server.config()).of([([5, 6], [7, 8, 9])])
        assert len(server.bodies) == 1  # it would come back again
    assert str(raised.value).endswith("Run the same command again to resume from the last checkpoint.")


def test_a_server_that_is_busy_or_breaks_off_is_asked_again() -> None:
    faults = [error(429, headers={"Retry-After": "0"}), error(503), reset, html(), send(200, {"choices": "none"})]
    exact = tiny_model(seed=1)

    def sometimes(body: dict[str, Any], number: int) -> Act | None:
        return faults[number] if number < len(faults) else None

    with TeacherServer(exact, instead=sometimes) as server:
        (found,) = asking(server.config(max_retries=5, concurrency=1)).of([([5, 6], [7, 8, 9])])
    with torch.no_grad():
        logps_TV = exact(input_ids=torch.tensor([[5, 6, 7, 8, 9]])).logits[0].log_softmax(-1)
    assert found == pytest.approx([logps_TV[1, 7].item(), logps_TV[2, 8].item(), logps_TV[3, 9].item()], abs=1e-6)


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (error(503, "busy"), r": no reply after 3 attempts: HTTP 503: .*busy.* Check that the server is running"),
        (html(), r": no reply after 3 attempts: the response is not a completion: <html>"),
        (error(400, "too long"), r" rejected 5 tokens: HTTP 400: .*too long.*--max-model-len"),
        (error(404, "no such path"), r" rejected the request: HTTP 404: .*no such path.* Check base_url and the model's name"),
        (error(401, "no"), r" rejected the request: HTTP 401: .*Set api_key_env"),
    ],
)
def test_a_server_that_does_not_say_it_ends_the_run(act: Act, words: str) -> None:
    with TeacherServer(tiny_model(seed=1), instead=lambda body, number: act) as server, pytest.raises(JudgeError, match=words):
        asking(server.config()).of([([5, 6], [7, 8, 9])])


def test_the_requests_have_what_the_config_adds() -> None:
    with TeacherServer(tiny_model(seed=1)) as server:
        asking(server.config(body={"priority": 3})).of([([5, 6], [7])])
    assert server.bodies[0]["priority"] == 3


def test_nothing_is_asked_about_an_answer_of_which_nothing_can_be_read() -> None:
    with TeacherServer(tiny_model(seed=1)) as server:
        assert asking(server.config()).of([([5, 6], []), ([5], [6])])[0] == []
    assert [body["prompt"] for body in server.bodies] == [[5, 6]]


def test_a_certain_token_has_log_probability_0() -> None:
    """It is no padding, and rounding may lift it a little."""
    with TeacherServer(tiny_model(seed=1), spoil=change(3, 0.0)) as server:
        (found,) = asking(server.config()).of([([5, 6], [7, 8, 9])])
    assert found[1] == 0
    assert found[0] < 0
