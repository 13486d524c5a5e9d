"""What a PPO run does, update by update, on models of a few thousand parameters."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from aligndistill.config.models import Lora
from aligndistill.errors import TrainingError
from aligndistill.models.actor_critic import ActorCritic
from aligndistill.models.groups import TokenGroup
from aligndistill.models.load import LanguageModel, ModelPointer, load_language_model, wrap_language_model
from aligndistill.training.checkpoints import all_checkpoints
from aligndistill.training.on_policy.rollouts import (
    Rollout,
    RolloutSettings,
    SampledPrompt,
    critic_values,
    logprobs_and_values,
    policy_logprobs,
)
from aligndistill.training.on_policy.trainer import PpoTrainer
from aligndistill.training.save import save_model
from tests.tiny_models import (
    assert_same_steps,
    damped_adam,
    random_groups,
    tiny_language_model,
    tiny_model,
    tiny_tokenizer,
    write_tiny_model,
)
from tests.training.on_policy.tiny_ppo import Ran, tiny_ppo, vowels

LOGGED = {
    *("update", "loss", "grad_norm", "learning_rate", "score", "score_std", "reward", "kl_k1_nats", "kl_k3_nats"),
    *("kl_coefficient", "explained_variance", "eos_rate", "length_tokens", "unscored", "rollout_seconds", "scoring_seconds"),
    *("update_seconds", "policy_loss", "value_loss", "entropy_nats", "clip_fraction", "update_kl_nats", "ratio_mean", "ratio_max"),
}


def ids(rollouts: Sequence[Sequence[Rollout]]) -> list[list[list[list[int]]]]:
    return [[rollout.responses for rollout in update] for update in rollouts]


def require_equal(some: dict[str, Tensor], others: dict[str, Tensor]) -> None:
    assert some.keys() == others.keys()
    for name, value in some.items():
        assert torch.equal(value, others[name]), name


def often_ending() -> LanguageModel:
    """Many tokens end an answer."""
    model = tiny_model()
    model.generation_config.eos_token_id = [1, *range(200, 240)]
    return wrap_language_model(model, tiny_tokenizer(), "chat")


# -------------------------------------------------------------------------------------------------------------- updates


def test_every_update_is_logged_with_what_explains_it(tmp_path: Path) -> None:
    ran = tiny_ppo(tmp_path, updates=3, minibatches=2, policy=often_ending(), reference=often_ending())
    assert ran.trained.steps == 3 * 2 * 2
    assert [entry["update"] for entry in ran.trained.log] == [1, 2, 3]
    for entry, rollouts in zip(ran.trained.log, ran.rollouts, strict=True):
        assert entry.keys() >= LOGGED
        assert len(rollouts) == 8
        answers = [one for rollout in rollouts for one in rollout.responses]
        finishes = [one for rollout in rollouts for one in rollout.finishes]
        scores = [score for rollout in rollouts for score in rollout.scores if score is not None]
        assert entry["length_tokens"] == pytest.approx(sum(map(len, answers)) / 24)
        assert entry["eos_rate"] == pytest.approx(finishes.count("stop") / 24)
        assert entry["score"] == pytest.approx(sum(scores) / 24)
    first = ran.trained.log[0]
    assert 0 < first["eos_rate"] < 1
    # The policy is still the reference when it samples first, and the ratios are of one policy with itself in the first step.
    assert abs(first["kl_k1_nats"]) < 1e-4
    assert abs(first["kl_k3_nats"]) < 1e-6
    assert ran.trained.log[-1]["kl_k3_nats"] > 1e-3


def test_answers_are_cut_at_any_end_and_carry_the_policys_own_log_probabilities(tmp_path: Path) -> None:
    policy, reference = often_ending(), often_ending()
    ran = tiny_ppo(tmp_path, updates=1, policy=policy, reference=reference, temperature=0.8)
    for rollout in ran.rollouts[0]:
        for response, finish, logprobs in zip(rollout.responses, rollout.finishes, rollout.logprobs, strict=True):
            assert not any(token in policy.conversation.eos_ids for token in response[:-1])
            assert (response[-1] in policy.conversation.eos_ids) == (finish == "stop")
            row = torch.tensor([rollout.prompt.ids + response])
            with torch.no_grad():
                logprobs_TV = (reference.model(input_ids=row).logits[0] / 0.8).log_softmax(-1)  # not yet trained: the same
            first = len(rollout.prompt.ids) - 1
            expected = [logprobs_TV[first + t, token].item() for t, token in enumerate(response)]
            assert logprobs == pytest.approx(expected, abs=1e-4)
        assert [list(map(len, rows)) for rows in (rollout.logprobs, rollout.reference, rollout.values)] == [
            [len(response) for response in rollout.responses]
        ] * 3


def test_prompts_are_taken_in_a_new_order_again_and_again(tmp_path: Path) -> None:
    ran = tiny_ppo(tmp_path, updates=4, job={"batch_size": 6}, ppo_epochs=1, samples_per_prompt=1)
    asked = [rollout.prompt.id for update in ran.rollouts for rollout in update]
    passes = [asked[start : start + 8] for start in range(0, 24, 8)]
    assert len(asked) == 24
    assert all(sorted(one) == sorted(str(n) for n in range(8)) for one in passes)
    assert passes[0] != passes[1] != passes[2]


def test_a_run_is_its_seeds(tmp_path: Path) -> None:
    one, other = (tiny_ppo(tmp_path / name, critic="separate") for name in "ab")
    require_equal(one.weights, other.weights)
    assert ids(one.rollouts) == ids(other.rollouts)
    # A prompt's answers are new in every update.
    assert not set(map(tuple, itertools.chain(*ids(one.rollouts)[0]))) & set(map(tuple, itertools.chain(*ids(one.rollouts)[1])))


@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_one_micro_batch_of_eight_and_eight_of_one_make_the_same_update(critic: str, tmp_path: Path) -> None:
    with damped_adam():
        runs = {
            size: tiny_ppo(
                tmp_path / str(size),
                critic=critic,
                entropy_coefficient=0.01,
                policy=often_ending(),
                reference=often_ending(),
                runtime={"per_device_train_batch_size": size},
                updates=1,  # rounding in its steps may change a sampled token of the next
            )
            for size in (8, 1)
        }
    accumulation = {size: ran.trained.trainer.args.gradient_accumulation_steps for size, ran in runs.items()}
    assert accumulation == {8: 1, 1: 8}
    assert_same_steps(runs[1].weights, runs[8].weights)
    start = {"policy." + name: value for name, value in often_ending().model.named_parameters()}
    assert max((runs[8].weights[name] - value).abs().max().item() for name, value in start.items()) > 1e-3
    for ours, theirs in zip(runs[1].trained.log, runs[8].trained.log, strict=True):
        for name in LOGGED - {"rollout_seconds", "scoring_seconds", "update_seconds"}:
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-5), name


def test_micro_batches_hold_answers_of_similar_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[list[int]] = []
    plain = PpoTrainer.compute_loss

    def compute_loss(self: Any, model: Any, inputs: dict[str, Tensor], **more: Any) -> Tensor:
        per_row = 3 if inputs["share"] else 1
        rows.append((inputs["segments_NT"] >= 0).sum(1).tolist())
        assert inputs["tokens_BKR"].shape[:2] == (len(rows[-1]) * per_row // 3, 3)
        return plain(self, model, inputs, **more)

    monkeypatch.setattr(PpoTrainer, "compute_loss", compute_loss)
    ran = tiny_ppo(
        tmp_path, policy=often_ending(), reference=often_ending(), runtime={"per_device_train_batch_size": 2}, critic="separate"
    )
    assert ran.trained.trainer.args.gradient_accumulation_steps == 4
    assert len(rows) == 2 * 2 * 4
    for step in range(0, len(rows), 4):
        for longer, shorter in itertools.pairwise(rows[step : step + 4]):
            assert min(longer) >= max(shorter)
        assert max(rows[step]) > min(rows[step + 3])


def test_a_token_budget_makes_micro_batches_smaller_and_updates_no_other(tmp_path: Path) -> None:
    with damped_adam():
        plain = tiny_ppo(tmp_path / "plain", updates=1)  # rounding in its steps may change a sampled token of the next
        longest = max(len(rollout.prompt.ids) for rollout in plain.rollouts[0]) + 3 * 8
        limited = tiny_ppo(tmp_path / "limited", updates=1, runtime={"max_tokens_per_batch": 2 * longest + 1})
    sizes = [ran.trained.trainer.args.per_device_train_batch_size for ran in (plain, limited)]
    assert sizes == [8, 2]
    assert ids(limited.rollouts) == ids(plain.rollouts)
    assert_same_steps(limited.weights, plain.weights)


def test_one_pass_has_log_probs_and_values_of_a_shared_critic() -> None:
    policy = tiny_language_model()
    model = ActorCritic(policy.model, None)
    assert model.value_head is not None
    torch.nn.init.normal_(model.value_head.weight, generator=torch.Generator().manual_seed(0))
    sampling = RolloutSettings(samples=3, temperature=0.7, max_new_tokens=8, batch_size=2, seed=0)
    groups = random_groups([(7, [4, 6, 1]), (3, [5, 2, 8]), (9, [8, 1, 1])])
    logprobs, values = logprobs_and_values(model, policy, groups, sampling)
    for ours, theirs in (
        (logprobs, policy_logprobs(policy, groups, sampling)),
        (values, critic_values(model, policy, groups, sampling)),
    ):
        for group, mine, others in zip(groups, ours, theirs, strict=True):
            assert list(map(len, mine)) == list(map(len, group.responses))
            for row, other in zip(mine, others, strict=True):
                assert row == pytest.approx(other, abs=1e-5)


def test_rollouts_do_not_depend_on_how_many_are_made_at_once(tmp_path: Path) -> None:
    with damped_adam():
        runs = [tiny_ppo(tmp_path / str(size), updates=1, runtime={"per_device_eval_batch_size": size}) for size in (32, 3, 1)]
    for other in runs[1:]:
        assert ids(other.rollouts) == ids(runs[0].rollouts)
        assert_same_steps(other.weights, runs[0].weights)


def test_minibatches_are_steps_over_parts_of_the_same_answers(tmp_path: Path) -> None:
    ran = tiny_ppo(tmp_path, updates=1, minibatches=4, ppo_epochs=3)
    assert ran.trained.steps == 12
    assert [len(update) for update in ran.rollouts] == [8]


# -------------------------------------------------------------------------------------------------- critic and reference


def test_the_critics_learning_rate_is_the_critics_alone(tmp_path: Path) -> None:
    """After one step: later ones learn from what the critic predicted."""
    one, other = (
        tiny_ppo(tmp_path / str(rate), updates=1, ppo_epochs=1, critic="separate", critic_learning_rate=rate)
        for rate in (None, 1e-5)
    )
    start = {"policy." + name: value for name, value in tiny_language_model().model.named_parameters()}
    for name, value in one.weights.items():
        if name.startswith("policy."):
            assert torch.equal(value, other.weights[name])
            assert not torch.equal(value, start[name])
    moved = {
        name: (one.weights[name] - value).abs().max().item() for name, value in other.weights.items() if name.startswith("critic.")
    }
    # The critic begins at zero, so that its first gradient is its head's: a step of the rate's own size there.
    assert moved["critic.score.weight"] == pytest.approx(1e-3 - 1e-5, rel=0.02)


def test_with_adapters_the_reference_is_the_policy_without_them(tmp_path: Path) -> None:
    start = tiny_language_model()
    policy = tiny_language_model()
    before = {name: value.detach().clone() for name, value in policy.model.named_parameters()}
    ran = tiny_ppo(
        tmp_path, updates=3, lora=Lora(r=2, lora_dropout=0.5), critic="separate", policy=policy, job={"learning_rate": 3e-2}
    )
    sampling = RolloutSettings(samples=3, temperature=1.0, max_new_tokens=8, batch_size=8, seed=0)
    for update in ran.rollouts:
        groups = [TokenGroup(rollout.prompt.ids, rollout.responses) for rollout in update]
        expected = policy_logprobs(start, groups, sampling)
        for rollout, rows in zip(update, expected, strict=True):
            for ours, theirs in zip(rollout.reference, rows, strict=True):
                assert ours == pytest.approx(theirs, abs=1e-4)
    assert ran.trained.log[0]["kl_k3_nats"] < 1e-6
    assert ran.trained.log[-1]["kl_k3_nats"] > 1e-3
    assert all("lora_" in name or "score" in name for name in ran.weights)
    for name, value in before.items():
        assert torch.equal(value, ran.trained.trainer.model.policy.get_base_model().get_parameter(_in_adapters(name)))


def _in_adapters(name: str) -> str:
    """A linear layer's weight is one level deeper when there is an adapter beside it."""
    adapted = name.endswith("proj.weight")
    return name.replace(".weight", ".base_layer.weight") if adapted else name


@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_a_critic_learns_on_weights_in_half_precision_without_autocast(critic: str, tmp_path: Path) -> None:
    backbone = write_tiny_model(tmp_path / "backbone")
    policy = load_language_model(ModelPointer(path=str(backbone), layout="chat", dtype="bfloat16"))
    ran = tiny_ppo(tmp_path, updates=1, policy=policy, lora=Lora(r=2), critic=critic, backbone=backbone, critic_dtype="bfloat16")
    assert {weight.dtype for weight in ran.weights.values()} == {torch.float32}
    (head,) = [weight for name, weight in ran.weights.items() if "value_head.weight" in name or "score" in name]
    assert head.abs().min() > 0, "it begins at zero"


@pytest.mark.parametrize("lora", [None, Lora(r=2)])
def test_what_is_saved_is_the_policy_alone_as_an_ordinary_folder(lora: Lora | None, tmp_path: Path) -> None:
    base = ModelPointer(path=str(write_tiny_model(tmp_path / "base")), layout="chat")
    ran = tiny_ppo(tmp_path, updates=1, critic="separate", lora=lora)
    save_model(ran.trained, tmp_path / "model", base, lora is not None, AutoModelForCausalLM)
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    row = torch.tensor([[5, 6, 7, 8]])
    policy = ran.trained.trainer.model.policy.eval()
    with torch.no_grad():
        torch.testing.assert_close(saved(input_ids=row).logits, policy(input_ids=row).logits, rtol=1e-4, atol=1e-4)
    assert saved.config.use_cache
    assert not any("critic" in name or "value_head" in name for name in saved.state_dict())
    assert not (tmp_path / "model" / "training_args.bin").exists()


# -------------------------------------------------------------------------------------------------------- scores, looks


def test_answers_without_a_score_are_counted_and_not_learned_from(tmp_path: Path) -> None:
    def only_the_first(asked: Sequence[SampledPrompt]) -> list[list[float | None]]:
        return [[row[0], *[None] * (len(row) - 1)] for row in vowels(asked)]

    ran = tiny_ppo(tmp_path, score=only_the_first)
    assert [entry["unscored"] for entry in ran.trained.log] == [pytest.approx(2 / 3)] * 2
    first = [rollout.scores[0] for rollout in ran.rollouts[0]]
    assert ran.trained.log[0]["score"] == pytest.approx(sum(one for one in first if one is not None) / 8)


def test_held_out_prompts_are_looked_at_every_so_many_updates(tmp_path: Path) -> None:
    looks: list[bool] = []

    def win_rate(policy: LanguageModel) -> float:
        looks.append(policy.model.training)
        return 0.25 * len(looks)

    ran = tiny_ppo(tmp_path, updates=5, ppo_epochs=1, evaluate_every=2, win_rate=win_rate)
    assert [entry.get("held_out_win_rate") for entry in ran.trained.log] == [0.25, None, 0.5, None, 0.75]
    assert looks == [False] * 3
    assert not tiny_ppo(tmp_path / "never", updates=1, win_rate=win_rate).trained.log[0].get("held_out_win_rate")


def test_an_adaptive_coefficient_follows_the_kl(tmp_path: Path) -> None:
    ran = tiny_ppo(tmp_path, updates=3, kl_coefficient=0.1, kl_target=1e-3, kl_horizon=240, job={"learning_rate": 1e-2})
    coefficient = 0.1
    for entry in ran.trained.log:
        assert entry["kl_coefficient"] == pytest.approx(coefficient)
        error = min(max(entry["kl_k3_nats"] / 1e-3 - 1, -0.2), 0.2)
        coefficient *= 1 + error * 24 / 240
    assert ran.trained.log[1]["kl_coefficient"] == pytest.approx(0.098)  # no KL yet
    assert ran.trained.log[2]["kl_coefficient"] > 0.098  # and then far past the target


# ------------------------------------------------------------------------------------------------------------ kl_budget


FAST: dict[str, Any] = {"job": {"learning_rate": 1e-2}, "runtime": {"save_steps": 2}}


@pytest.fixture(scope="module")
def unbounded(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return tiny_ppo(tmp_path_factory.mktemp("unbounded"), updates=4, **FAST)


def test_a_budget_ends_the_run_at_the_last_checkpoint_inside_it(unbounded: Ran, tmp_path: Path) -> None:
    kl = [entry["kl_k3_nats"] for entry in unbounded.trained.log]  # before each update
    assert kl[0] < kl[1] < kl[2] < kl[3]
    bounded = tiny_ppo(tmp_path / "budget", updates=4, kl_budget=(kl[1] + kl[2]) / 2, **FAST)
    assert bounded.trained.steps == 2  # one update of two steps; after the second one it was past
    assert [entry["update"] for entry in bounded.trained.log] == [1]
    one_update = tiny_ppo(tmp_path / "one", updates=1, **FAST)
    require_equal(bounded.weights, one_update.weights)
    # The same command again comes to the same end, though its newest checkpoint is past the budget.
    again = tiny_ppo(tmp_path / "budget", updates=4, kl_budget=(kl[1] + kl[2]) / 2, **FAST)
    assert again.trained.steps == 2
    require_equal(again.weights, one_update.weights)


def test_the_last_policy_is_held_to_the_budget_too(unbounded: Ran, tmp_path: Path) -> None:
    kl = [entry["kl_k3_nats"] for entry in unbounded.trained.log]
    bounded = tiny_ppo(tmp_path / "budget", updates=2, kl_budget=(kl[1] + kl[2]) / 2, **FAST)
    assert bounded.trained.steps == 2
    require_equal(bounded.weights, tiny_ppo(tmp_path / "one", updates=1, **FAST).weights)
    inside = tiny_ppo(tmp_path / "inside", updates=2, kl_budget=kl[2] * 2, **FAST)
    assert inside.trained.steps == 4


def test_a_budget_that_no_checkpoint_kept_says_so(unbounded: Ran, tmp_path: Path) -> None:
    kl = [entry["kl_k3_nats"] for entry in unbounded.trained.log]
    with pytest.raises(TrainingError, match=r"after 1 updates KL was .* nats per answer, above kl_budget .*Lower learning_rate"):
        tiny_ppo(tmp_path, updates=4, kl_budget=kl[1] / 2, **FAST)
    assert [path.name for path in all_checkpoints(tmp_path / "job")] == ["checkpoint-2"]
