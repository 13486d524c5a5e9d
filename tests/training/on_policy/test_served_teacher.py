"""On-policy distillation from a teacher behind a server of vLLM's shape: the same as from one in memory, and what it reports."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tenacity
import torch

from aligndistill.chat.http import retries
from aligndistill.config.models import Lora
from aligndistill.models.load import LanguageModel, wrap_language_model
from aligndistill.training.on_policy.distillation import OnPolicyDistilTrainer
from aligndistill.training.on_policy.served_teacher import ServedTeacher
from tests.chat.test_answer_logprobs import asking, change
from tests.tiny_models import assert_same_steps, damped_adam, tiny_language_model, tiny_model, tiny_tokenizer
from tests.training.on_policy.teacher_server import TeacherServer
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


def served(server: TeacherServer) -> ServedTeacher:
    return ServedTeacher(SAME, frozenset(range(len(tiny_tokenizer()))), asking(server.config()).of)


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


@pytest.mark.parametrize("value", [-9999.0, float("-inf")])
def test_a_token_that_the_teacher_never_says_is_clipped(value: float, tmp_path: Path) -> None:
    with TeacherServer(tiny_model(seed=1), spoil=change(-1, value)) as server:
        ran = distilled(tmp_path, served(server), updates=1, advantage_clip=4.0)
    tokens = sum(len(one.ids) for _, samples in ran.answers[0] for one in samples)
    assert ran.trained.log[0]["clip_fraction"] >= 24 / tokens - 1e-6  # the last token of each answer, and what was beyond anyway
    assert abs(ran.trained.log[0]["loss"]) <= 4
