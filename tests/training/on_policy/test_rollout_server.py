"""Rollouts by a server of vLLM's shape: PPO learns from them as from its own, and reports what the server does wrong."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tenacity
import torch

from aligndistill.chat.http import retries
from aligndistill.config.models import Lora
from aligndistill.errors import TrainingError, UserError
from aligndistill.models.load import LanguageModel
from aligndistill.models.sampling import SampleRequest
from aligndistill.training.on_policy.rollout_server import RolloutServerClient
from aligndistill.training.on_policy.weight_sync import LogprobGap, ServedRollouts, require_policys_weights
from tests.chat.fault_server import Act, after, error, reset, send
from tests.tiny_models import tiny_language_model, tiny_tokenizer, write_tiny_model
from tests.training.on_policy.policy_server import PolicyServer
from tests.training.on_policy.tiny_ppo import Ran, tiny_ppo

pytestmark = pytest.mark.process  # servers with a model, and trainings with them

RELOAD, RESET, COMPLETIONS = "/collective_rpc", "/reset_prefix_cache", "/v1/completions"


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("start") / "model")


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the attempts of a request."""
    monkeypatch.setattr(retries, "_backoff", tenacity.wait_fixed(0.01))


@pytest.fixture
def server(start: Path) -> Iterator[PolicyServer]:
    with PolicyServer(start) as running:
        yield running


def served_ppo(folder: Path, server: PolicyServer, *, lora: Lora | None = None, **settings: Any) -> Ran:
    served = ServedRollouts(RolloutServerClient(server.rollouts()), folder / "weights")
    return tiny_ppo(folder, served=served, lora=lora, **settings)


def sample(server: PolicyServer, policy: LanguageModel | None = None, samples: int = 2, **config: Any) -> Any:
    requests = [SampleRequest([5, 6, 7 + n], f"key {n}", tuple(range(samples))) for n in range(3)]
    served = RolloutServerClient(server.rollouts(**config))
    return served.sample(policy or tiny_language_model(), requests, temperature=1.0, max_new_tokens=6, seed=1)


# ------------------------------------------------------------------------------------------------------------- learning


def test_ppo_learns_from_what_a_server_samples(server: PolicyServer, tmp_path: Path) -> None:
    ran = served_ppo(tmp_path, server, updates=12, job={"learning_rate": 5e-3}, kl_coefficient=0.0)
    log = ran.trained.log
    assert sum(entry["score"] for entry in log[-3:]) > 1.5 * sum(entry["score"] for entry in log[:3])
    # The policy is far from where it began, and the server's log-probs are the policy's in every update all the same.
    assert log[-1]["kl_k3_nats"] > 1
    assert all(entry["server_gap_nats"] < 1e-4 for entry in log)
    assert server.stale == 0


def test_every_update_hands_its_own_weights_over_by_a_new_folder(server: PolicyServer, tmp_path: Path) -> None:
    seen: list[dict[str, torch.Tensor]] = []

    class Watched(RolloutServerClient):
        def load(self, folder: Path) -> None:
            seen.append({name: value.clone() for name, value in policy.model.state_dict().items()})
            assert [path.name for path in folder.parent.iterdir() if path != folder] == [path.name for path in left]
            super().load(folder)
            left[:] = [folder]

    left: list[Path] = []
    policy = tiny_language_model()
    served = ServedRollouts(Watched(server.rollouts()), tmp_path / "weights")
    tiny_ppo(tmp_path, served=served, updates=3, policy=policy)
    folders = [folder for folder, _ in server.loaded]
    assert len(set(folders)) == 3
    assert all(folder.parent == tmp_path / "weights" for folder in folders)
    assert not any(folder.exists() for folder in folders[:-1])
    for weights, (_, loaded) in zip(seen, server.loaded, strict=True):
        assert all(torch.equal(loaded[name], weights[name]) for name in weights)
    assert not torch.equal(seen[0]["model.embed_tokens.weight"], seen[1]["model.embed_tokens.weight"])
    served.clear()
    assert not (tmp_path / "weights").exists()


def test_the_old_log_probs_are_the_trainers_own(server: PolicyServer, tmp_path: Path) -> None:
    ran = served_ppo(tmp_path, server, updates=1, temperature=0.7)
    reference = tiny_language_model().model
    for rollout in ran.rollouts[0]:
        for response, logprobs in zip(rollout.responses, rollout.logprobs, strict=True):
            with torch.no_grad():
                logprobs_TV = (reference(input_ids=torch.tensor([rollout.prompt.ids + response])).logits[0] / 0.7).log_softmax(-1)
            first = len(rollout.prompt.ids) - 1
            expected = [logprobs_TV[first + t, token].item() for t, token in enumerate(response)]
            assert logprobs == pytest.approx(expected, abs=1e-4)
    assert ran.trained.trainer.state_of_ppo.keeps_logprobs is False
    # Measured at temperature 1, whatever the policy's is.
    assert ran.trained.log[0]["server_gap_nats"] < 1e-4


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")
@pytest.mark.parametrize("shape", ["llama", "gpt2"])
def test_adapters_are_served_merged_and_the_base_stays_as_it_is(shape: str, tmp_path: Path) -> None:
    start = write_tiny_model(tmp_path / "start", shape)
    policy = tiny_language_model(shape)
    before = {name: value.detach().clone() for name, value in policy.model.named_parameters()}
    with PolicyServer(start) as server:
        ran = served_ppo(tmp_path, server, updates=3, lora=Lora(r=2), policy=policy, job={"learning_rate": 3e-2})
        base = ran.trained.trainer.model.policy.get_base_model()
        for name, value in before.items():
            here = (
                name
                if name in dict(base.named_parameters())
                else name.replace(".weight", ".base_layer.weight").replace(".bias", ".base_layer.bias")
            )
            assert torch.equal(value, base.get_parameter(here)), name
        assert all(entry["server_gap_nats"] < 1e-4 for entry in ran.trained.log)
        assert ran.trained.log[-1]["kl_k3_nats"] > 1e-3
        for number, (_, loaded) in enumerate(server.loaded):
            assert loaded.keys() == tiny_language_model(shape).model.state_dict().keys()
            moved = max((loaded[name] - value).abs().max().item() for name, value in before.items())
            assert (moved > 1e-3) == (number > 0)


def test_what_is_asked_for_follows_from_seed_and_update(start: Path, tmp_path: Path) -> None:
    asked = []
    for name in "ab":
        with PolicyServer(start) as server:
            ran = served_ppo(tmp_path / name, server, updates=2)
            asked.append(sorted((body["seed"], body["prompt"]) for body in server.bodies_of(COMPLETIONS)))
            body = server.bodies_of(COMPLETIONS)[0]
            rollouts = [rollout.responses for update in ran.rollouts for rollout in update]
        assert len({seed for seed, _ in asked[-1]}) == 16
        assert {name: body[name] for name in ("n", "max_tokens", "logprobs", "return_token_ids", "skip_special_tokens")} == {
            **{"n": 3, "max_tokens": 8, "logprobs": 0, "return_token_ids": True, "skip_special_tokens": False}
        }
        assert body["stop_token_ids"] == sorted(tiny_language_model().conversation.eos_ids)
    assert asked[0] == asked[1]
    assert rollouts == [rollout.responses for update in ran.rollouts for rollout in update]


def test_the_last_policy_is_held_to_its_budget_by_the_server_too(server: PolicyServer, tmp_path: Path) -> None:
    ran = served_ppo(tmp_path, server, updates=2, kl_budget=1e6)
    assert len(server.loaded) == 3
    embedded = "model.embed_tokens.weight"
    assert torch.equal(server.loaded[-1][1][embedded], ran.trained.trainer.model.policy.get_parameter(embedded))


@pytest.mark.parametrize("concurrency", [1, 2, 3])
def test_as_many_prompts_are_asked_about_at_once_as_allowed(start: Path, concurrency: int) -> None:
    with PolicyServer(start, instead=only(COMPLETIONS, after(0.2, completion(choices())))) as server:
        sample(server, concurrency=concurrency)
        assert server.most_at_once == concurrency


# --------------------------------------------------------------------------------------------------------------- faults


def complaint(work: Callable[[], Any]) -> str:
    with pytest.raises(UserError) as raised:
        work()
    return str(raised.value)


def choices(**changed: Any) -> list[dict[str, Any]]:
    one = {"index": 0, "finish_reason": "length", "token_ids": [5] * 6, "logprobs": {"token_logprobs": [-1.0] * 6}, **changed}
    return [{**one, "index": 0}, {**one, "index": 1}]


def completion(found: list[dict[str, Any]]) -> Act:
    return send(200, {"choices": found})


def only(path: str, act: Act, times: int = 10**6) -> Callable[[str, dict[str, Any], int], Act | None]:
    left = [times]

    def instead(asked: str, body: dict[str, Any], number: int) -> Act | None:
        if asked != path or left[0] == 0:
            return None
        left[0] -= 1
        return act

    return instead


def test_a_server_that_is_not_there() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        config = PolicyServer.rollouts(_at(closed.getsockname()[1]), max_retries=0)
        message = complaint(RolloutServerClient(config).require_ready)
    assert "failed after 2 tries: the connection failed" in message
    assert "Check that it is running, that base_url is right" in message


def _at(port: int) -> Any:
    class Address:
        base_url = f"http://127.0.0.1:{port}/v1"

    return Address()


def test_a_server_without_dev_mode(start: Path) -> None:
    with PolicyServer(start, dev_mode=False) as server:
        served = RolloutServerClient(server.rollouts())
        for work in (served.require_ready, lambda: served.load(start)):
            assert "Start it with VLLM_SERVER_DEV_MODE=1 in its environment" in complaint(work)


@pytest.mark.parametrize("path", [RELOAD, RESET, COMPLETIONS])
@pytest.mark.parametrize("act", [error(500), error(429), reset])
def test_what_passes_is_tried_again(path: str, act: Act, start: Path, tmp_path: Path) -> None:
    with PolicyServer(start, instead=only(path, act, 1)) as server:
        ran = served_ppo(tmp_path, server, updates=1)
        assert len(server.bodies_of(path)) == (9 if path == COMPLETIONS else 2)
    assert len(ran.rollouts[0]) == 8


def test_errors_that_stay(start: Path, tmp_path: Path) -> None:
    with PolicyServer(start, instead=only(RELOAD, error(500, "CUDA error"))) as server:
        message = complaint(lambda: served_ppo(tmp_path, server, updates=1))
    assert "POST /collective_rpc failed after 3 tries: HTTP 500: " in message
    assert "CUDA error" in message
    assert f"that it can read {tmp_path / 'weights'}/update-0-" in message
    assert not list((tmp_path / "job").glob("checkpoint-*"))


def test_a_folder_that_the_server_does_not_see(server: PolicyServer, tmp_path: Path) -> None:
    message = complaint(lambda: RolloutServerClient(server.rollouts(max_retries=0)).load(tmp_path / "elsewhere"))
    assert "FileNotFoundError" in message
    assert "at this path (objective.server.weights sets the folder)" in message


def test_a_server_that_takes_too_long(start: Path) -> None:
    with PolicyServer(start, instead=only(COMPLETIONS, after(2, error(500)))) as server:
        message = complaint(lambda: sample(server, timeout_seconds=0.2, max_retries=1))
    assert "failed after 2 tries: no reply within 0.2 s. Check that" in message
    assert "timeout_seconds" in message


@pytest.mark.parametrize(
    ("found", "what"),
    [
        (choices()[:1], "1 choices where n is 2"),
        ([*choices(), *choices()], "4 choices where n is 2"),
        (choices(token_ids=None), "no token_ids. The server must support return_token_ids"),
        (choices(token_ids=[]), "no token_ids"),
        (choices(logprobs=None), "0 token_logprobs for 6 tokens"),
        (choices(token_ids=[5, 5, 5, 5, 5, 100_000]), r"token id 100000; the policy has 320 tokens. The server runs another model"),
        (choices(token_ids=[5, 5, 5, 5, 5, -1]), "token id -1"),
        (choices(token_ids=[5, 1, 5, 5, 5, 5]), "tokens after an end token"),
        (choices(token_ids=[5], logprobs={"token_logprobs": [-1.0]}), "1 tokens of 6, no end token"),
        (choices(token_ids=[5] * 7, logprobs={"token_logprobs": [-1.0] * 7}), "7 tokens of 6, no end token"),
    ],
)
def test_answers_that_the_policy_cannot_have_given(start: Path, found: list[dict[str, Any]], what: str) -> None:
    assert tiny_tokenizer().eos_token_id == 1
    with PolicyServer(start, instead=only(COMPLETIONS, completion(found))) as server:
        message = complaint(lambda: sample(server))
    assert "the rollout server http://127.0.0.1:" in message
    assert what in message
    assert "Run the same command again to resume from the last checkpoint." in message


@pytest.mark.parametrize(
    "act", [send(200, b"<html>"), send(200, {}), send(200, b""), completion(choices(logprobs={"token_logprobs": [None] * 6}))]
)
def test_bodies_that_are_no_completion(start: Path, act: Act) -> None:
    with PolicyServer(start, instead=only(COMPLETIONS, act)) as server:
        assert "failed after 1 try: the reply is not a valid completion" in complaint(lambda: sample(server, max_retries=0))


def test_an_end_token_in_the_last_place_is_an_end(start: Path) -> None:
    with PolicyServer(start, instead=only(COMPLETIONS, completion(choices(token_ids=[5, 5, 5, 5, 5, 1])))) as server:
        assert {one.finish for samples in sample(server) for one in samples} == {"stop"}


def test_another_name(server: PolicyServer) -> None:
    config = server.rollouts().model_copy(update={"name": "other"})
    message = complaint(RolloutServerClient(config).require_ready)
    assert "(other): POST /v1/completions was refused: HTTP 404" in message
    assert "Check base_url and the model's name." in message


def test_a_context_that_is_too_short(start: Path) -> None:
    with PolicyServer(start, instead=only(COMPLETIONS, error(400, "maximum context length is 8 tokens"))) as server:
        message = complaint(lambda: sample(server))
    assert "maximum context length is 8 tokens" in message
    assert "Check that its context (--max-model-len) is at least max_prompt_tokens plus max_response_tokens." in message


@pytest.mark.parametrize("path", [RESET, COMPLETIONS])
def test_a_key_that_is_wrong(path: str, start: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with PolicyServer(start, instead=only(path, error(401, "wrong key sk-very-secret-0815"))) as server:
        message = complaint(RolloutServerClient(server.rollouts()).require_ready)
        assert "HTTP 401" in message
        assert "Set api_key_env to the environment variable that contains the key." in message
        monkeypatch.setenv("ROLLOUT_KEY", "sk-very-secret-0815")
        message = complaint(RolloutServerClient(server.rollouts(api_key_env="ROLLOUT_KEY")).require_ready)
        assert "Check the key in ROLLOUT_KEY." in message
        assert "sk-very-secret" not in message
        assert server.headers[-1]["authorization"] == "Bearer sk-very-secret-0815"
    monkeypatch.delenv("ROLLOUT_KEY")
    assert "ROLLOUT_KEY (api_key_env) is not set" in complaint(
        lambda: RolloutServerClient(server.rollouts(api_key_env="ROLLOUT_KEY"))
    )


def test_a_server_that_keeps_the_weights_it_has(start: Path, tmp_path: Path) -> None:
    with PolicyServer(start, loads=False) as server:
        message = complaint(lambda: served_ppo(tmp_path, server, updates=12, job={"learning_rate": 1e-2}))
        assert "the rollout server does not run this policy's weights" in message
        assert "and 0.00 from the start's. It still runs the weights it was started with" in message
        assert len(server.loaded) == 2  # found at once: the first update's weights are the start's


def test_a_server_with_another_model(tmp_path: Path) -> None:
    with PolicyServer(write_tiny_model(tmp_path / "other", seed=1), loads=False) as server:
        message = complaint(lambda: served_ppo(tmp_path, server, updates=1))
    assert "does not run this policy's weights" in message
    assert "where rounding causes some hundredths" in message


@pytest.mark.parametrize(("policy_nats", "start_nats"), [(0.03, 0.2), (0.03, 0.02), (0.5, 3.0), (0.015, 0.0)])
def test_rounding_is_no_other_model(policy_nats: float, start_nats: float) -> None:
    require_policys_weights(LogprobGap(policy_nats, start_nats))


@pytest.mark.parametrize(("policy_nats", "start_nats"), [(0.51, 3.0), (0.1, 0.03), (float("nan"), 1.0), (float("inf"), 1.0)])
def test_another_model_is_refused(policy_nats: float, start_nats: float) -> None:
    with pytest.raises(TrainingError, match="does not run this policy's weights"):
        require_policys_weights(LogprobGap(policy_nats, start_nats))
