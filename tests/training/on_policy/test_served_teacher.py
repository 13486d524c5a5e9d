"""On-policy distillation from a teacher behind a server of vLLM's shape: the same as from one in memory, and what it reports."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tenacity
import torch

from aligndistill.chat.answer_logprobs import AnswerLogprobs
from aligndistill.chat.endpoint import EndpointChat
from aligndistill.chat.http import retries
from aligndistill.config.models import EndpointModel, Lora
from aligndistill.errors import JudgeError
from aligndistill.models.load import LanguageModel, wrap_language_model
from aligndistill.training.on_policy.distillation import OnPolicyDistilTrainer
from aligndistill.training.on_policy.served_teacher import ServedTeacher
from tests.chat.fault_server import Act, error, html, reset, send
from tests.tiny_models import assert_same_steps, damped_adam, tiny_language_model, tiny_model, tiny_tokenizer
from tests.training.on_policy.teacher_server import Scored, TeacherServer
from tests.training.on_policy.test_distillation import without_seconds
from tests.training.on_policy.tiny_distillation import SAME, Distilled, tiny_distillation

pytestmark = pytest.mark.process  # servers with a model, and trainings with them

SAME_AS_LOCAL = ("loss", "grad_norm", "divergence", "clip_fraction", "length_tokens", "eos_rate", "unreadable")


@pytest.fixture(autouse=True)
def _fast_and_damped(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(retries, "_backoff", tenacity.wait_fixed(0.01))
    with damped_adam():
        yield


@pytest.fixture
def server() -> Iterator[TeacherServer]:
    with TeacherServer(tiny_model(seed=1)) as running:
        yield running


def asking(config: EndpointModel) -> AnswerLogprobs:
    return AnswerLogprobs(EndpointChat(config).server)


def served(server: TeacherServer, ids: int | None = None, **config: Any) -> ServedTeacher:
    known = frozenset(range(len(tiny_tokenizer()) if ids is None else ids))
    return ServedTeacher(SAME, known, asking(server.config(**config)).of)


def distilled(folder: Path, teacher: ServedTeacher | LanguageModel, **settings: Any) -> Distilled:
    return tiny_distillation(folder, teacher=teacher, **{"form": "sampled", "updates": 3, **settings})


def assert_same_runs(over_http: Distilled, local: Distilled) -> None:
    """The same answers, first loss and gradient to 1e-5, and weights that differ by rounding."""
    assert over_http.ids == local.ids
    for ours, theirs in zip(over_http.trained.log, local.trained.log, strict=True):
        assert {name: ours[name] for name in SAME_AS_LOCAL} == pytest.approx(
            {name: theirs[name] for name in SAME_AS_LOCAL}, rel=1e-4
        )
    for name in SAME_AS_LOCAL:
        assert over_http.trained.log[0][name] == pytest.approx(local.trained.log[0][name], rel=1e-5, abs=1e-7), name
    assert_same_steps(over_http.weights, local.weights)


# ------------------------------------------------------------------------------------------------ the same as in memory


@pytest.mark.parametrize(
    "settings", [{}, {"lora": Lora(r=4)}, {"advantage_clip": 0.3}, {"runtime": {"per_device_train_batch_size": 2}}], ids=str
)
def test_a_teacher_on_a_server_teaches_as_one_in_memory_does(
    settings: dict[str, Any], server: TeacherServer, tmp_path: Path
) -> None:
    over_http = distilled(tmp_path / "served", served(server), **settings)
    local = distilled(tmp_path / "local", tiny_language_model(seed=1), **settings)
    assert_same_runs(over_http, local)
    first = over_http.trained.log[0]
    assert first["entropy_nats"] == pytest.approx(local.trained.log[0]["entropy_nats"], rel=1e-5)
    assert "kl_forward_nats" not in first  # it takes whole distributions
    assert first["teacher_seconds"] > 0
    if "advantage_clip" in settings:
        assert first["clip_fraction"] > 0.1


def test_each_answer_is_one_request_with_its_prompt_as_token_ids(server: TeacherServer, tmp_path: Path) -> None:
    ran = distilled(tmp_path, served(server), updates=2)
    wanted = [prompt.ids + one.ids for update in ran.answers for prompt, samples in update for one in samples]
    assert sorted(server.asked) == sorted(wanted)
    body = server.bodies[0]
    assert {name: body[name] for name in ("model", "max_tokens", "prompt_logprobs", "return_token_ids", "temperature")} == {
        **{"model": "teacher", "max_tokens": 1, "prompt_logprobs": 0, "return_token_ids": True, "temperature": 1.0}
    }
    assert server.most_at_once > 1


def test_tokens_that_only_the_student_has_are_not_sent(tmp_path: Path) -> None:
    """A third of the student's rows are behind the teacher's last token; what the teacher cannot say counts as impossible."""
    known = len(tiny_tokenizer())

    def wider(rows: int, seed: int) -> LanguageModel:
        return wrap_language_model(tiny_model("qwen2", seed, vocab_size=known + rows), tiny_tokenizer(), "chat")

    with TeacherServer(wider(0, 1).model) as server:
        over_http = distilled(tmp_path / "served", served(server), student=wider(known // 2, 0))
    assert all(token < known for ids in server.asked for token in ids)
    local = distilled(tmp_path / "local", wider(0, 1), student=wider(known // 2, 0))
    assert_same_runs(over_http, local)
    assert over_http.trained.log[0]["unreadable"] > 0.1
    assert over_http.trained.log[0]["clip_fraction"] > 0.05


def test_a_run_that_stops_in_the_middle_asks_the_same_again(server: TeacherServer, tmp_path: Path) -> None:
    more: dict[str, Any] = {"updates": 5, "runtime": {"save_steps": 1}, "job": {"batch_size": 4, "learning_rate": 1e-2}}
    whole = distilled(tmp_path / "whole", served(server), **more)
    plain = OnPolicyDistilTrainer.training_step

    def training_step(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == 3:
            raise KeyboardInterrupt
        return plain(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OnPolicyDistilTrainer, "training_step", training_step)
        with pytest.raises(KeyboardInterrupt):
            distilled(tmp_path / "again", served(server), **more)
    before = len(server.asked)
    resumed = distilled(tmp_path / "again", served(server), **more)
    assert len(server.asked) - before == 2 * 4 * 3  # of the fourth and fifth updates
    assert resumed.ids == whole.ids[3:]
    assert all(torch.equal(value, resumed.weights[name]) for name, value in whole.weights.items())
    assert without_seconds(resumed.trained.log) == without_seconds(whole.trained.log)


# ------------------------------------------------------------------------------------------------------ what can go wrong


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


@pytest.mark.parametrize("value", [-9999.0, float("-inf")])
def test_a_token_that_the_teacher_never_says_is_clipped(value: float, tmp_path: Path) -> None:
    with TeacherServer(tiny_model(seed=1), spoil=change(-1, value)) as server:
        ran = distilled(tmp_path, served(server), updates=1, advantage_clip=4.0)
    tokens = sum(len(one.ids) for _, samples in ran.answers[0] for one in samples)
    assert ran.trained.log[0]["clip_fraction"] >= 24 / tokens - 1e-6  # the last token of each answer, and what was beyond anyway
    assert abs(ran.trained.log[0]["loss"]) <= 4


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


def test_the_requests_have_what_the_config_adds(server: TeacherServer) -> None:
    asking(server.config(body={"priority": 3})).of([([5, 6], [7])])
    assert server.bodies[0]["priority"] == 3


def test_nothing_is_asked_about_an_answer_of_which_nothing_can_be_read(server: TeacherServer) -> None:
    assert asking(server.config()).of([([5, 6], []), ([5], [6])])[0] == []
    assert [body["prompt"] for body in server.bodies] == [[5, 6]]
