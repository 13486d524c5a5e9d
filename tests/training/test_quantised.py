"""Adapters on quantised models: they learn, start at the reference, stay float32, and are saved as what was trained."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from aligndistill.config.models import Lora, Quantize
from aligndistill.config.objectives import Grpo
from aligndistill.config.offline_objectives import Dpo
from aligndistill.errors import ConfigError
from aligndistill.models.load import LanguageModel, ModelPointer, load_language_model, read_pointer
from aligndistill.models.scoring import score_groups
from aligndistill.training import arguments
from aligndistill.training.adapters import with_adapters
from aligndistill.training.fit import Trained, require_whole_bytes
from aligndistill.training.offline.policy import train_policy
from aligndistill.training.on_policy.rollouts import PolicyPrompt, SampledPrompt
from aligndistill.training.on_policy.trl import train_by_trl
from aligndistill.training.save import save_model
from tests.tiny_models import (
    QUESTIONS,
    SIZES_FOR_BITS,
    damped_adam,
    pairs,
    random_groups,
    ranking_examples,
    tiny_job,
    user,
    write_tiny_model,
)
from tests.training.on_policy.tiny_ppo import tiny_ppo, vowels

LORA = Lora(r=4, lora_alpha=8)
DORA = LORA.model_copy(update={"use_dora": True})
KINDS = ("nf4", "int8")
ADAPTERS = pytest.mark.parametrize("lora", [LORA, DORA], ids=["lora", "dora"])
LOGPROB_TOLERANCE = 1e-3
"""Sums of up to six tokens' log-probs, nats: the rounding of float32, of logits around 10, in sums in another order."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny"), "llama", **SIZES_FOR_BITS)


def start_of(base: Path, kind: str, export: str = "merged") -> ModelPointer:
    return ModelPointer(path=str(base), layout="chat", dtype="float32", quantize=Quantize(kind=kind, export=export))


def learn(start: ModelPointer, lora: Lora, folder: Path, steps: int = 5) -> Trained:
    policy = load_language_model(start)
    examples = ranking_examples(policy.conversation, pairs(), policy)
    job = tiny_job(folder / "job", max_steps=steps, learning_rate=1e-2)
    return train_policy(policy, Dpo(kind="dpo"), lora, examples, job)


def magnitudes(model: Any) -> list[torch.Tensor]:
    return [one.detach().clone() for name, one in model.named_parameters() if "lora_magnitude_vector" in name]


def scores(model: LanguageModel) -> list[float]:
    groups = random_groups([(6, [5, 3]), (4, [6])])
    found = {one.index: one for one in score_groups(model, groups, 2)}
    return [response.logprob_nats for n in range(len(groups)) for response in found[n].responses]


@ADAPTERS
@pytest.mark.parametrize("kind", KINDS)
def test_dpo_begins_at_the_reference_learns_and_what_is_saved_is_what_was_trained(
    kind: str, lora: Lora, base: Path, tmp_path: Path
) -> None:
    trained = learn(start_of(base, kind), lora, tmp_path)
    losses = [entry["loss"] for entry in trained.log]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-3), "the reference is the policy without its adapters"
    assert losses[-1] < losses[0] - 0.1
    model = trained.trainer.model
    assert {one.dtype for one in model.parameters() if one.requires_grad} == {torch.float32}
    untrained = load_language_model(start_of(base, kind))
    adapted = LanguageModel(model.eval(), untrained.conversation, shares_prompt=True)
    expected = scores(adapted)
    assert scores(untrained) != pytest.approx(expected, abs=0.1), "it learned something"
    if lora.use_dora:
        assert all(float(one.std()) > 0 for one in magnitudes(model))
        before = magnitudes(with_adapters(untrained.model, lora, "CAUSAL_LM", 0))
        assert all(float((a - b).abs().max()) > 1e-3 for a, b in zip(magnitudes(model), before, strict=True))

    results = {}
    for export in ("merged", "adapter"):
        start = start_of(base, kind, export)
        folder = tmp_path / export
        folder.mkdir()
        save_model(trained, folder / "model", start, True, AutoModelForCausalLM)
        start.trained().write(folder)
        results[export] = load_language_model(read_pointer(folder))
        assert scores(results[export]) == pytest.approx(expected, abs=LOGPROB_TOLERANCE)
    assert scores(results["adapter"]) == expected, "reloading is exact"
    assert not any("adapter" in file.name for file in (tmp_path / "merged" / "model").iterdir())
    assert {one.dtype for one in AutoModelForCausalLM.from_pretrained(tmp_path / "merged" / "model").parameters()} == {
        torch.float32
    }
    assert not (tmp_path / "adapter" / "model" / "model.safetensors").exists()


def test_a_merged_model_can_be_saved_in_16_bits(base: Path, tmp_path: Path) -> None:
    trained = learn(start_of(base, "nf4"), LORA, tmp_path, steps=2)
    start = start_of(base, "nf4").model_copy(update={"dtype": "bfloat16"})
    save_model(trained, tmp_path / "model", start, True, AutoModelForCausalLM)
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert {one.dtype for one in saved.parameters()} == {torch.bfloat16}


@ADAPTERS
@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_in_bfloat16_as_on_a_gpu(
    kind: str, lora: Lora, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that are not quantised in bfloat16, under autocast; adapters in float32."""
    monkeypatch.setattr(arguments, "trains_in_bf16", lambda: True)
    policy = load_language_model(start_of(base, kind).model_copy(update={"dtype": "bfloat16"}))
    with arguments.rounded_as_in_training():
        examples = ranking_examples(policy.conversation, pairs(), policy)
    job = tiny_job(tmp_path / "job", max_steps=4, learning_rate=1e-2)
    trained = train_policy(policy, Dpo(kind="dpo"), lora, examples, job)
    assert trained.log[0]["loss"] == pytest.approx(math.log(2), abs=1e-2)
    assert trained.log[-1]["loss"] < 0.5
    assert {one.dtype for one in trained.trainer.model.parameters() if one.requires_grad} == {torch.float32}


@pytest.mark.parametrize("kind", KINDS)
def test_recomputed_activations_change_nothing(kind: str, base: Path, tmp_path: Path) -> None:
    losses = []
    for recompute in (False, True):
        policy = load_language_model(start_of(base, kind))
        examples = ranking_examples(policy.conversation, pairs(), policy)
        job = tiny_job(tmp_path / str(recompute), max_steps=3, runtime={"gradient_checkpointing": recompute})
        with damped_adam():
            losses.append([one["loss"] for one in train_policy(policy, Dpo(kind="dpo"), LORA, examples, job).log])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@ADAPTERS
@pytest.mark.parametrize("kind", KINDS)
def test_ppo_samples_and_trains_with_the_same_numbers(kind: str, lora: Lora, base: Path, tmp_path: Path) -> None:
    """The ratio before the first step is checked by an invariant in every update; a resume needs its checkpoints."""
    start = load_language_model(start_of(base, kind))
    ran = tiny_ppo(tmp_path, lora=lora, policy=start, job={"learning_rate": 1e-3})
    log = ran.trained.log
    assert len(log) == 2
    assert log[0]["kl_k3_nats"] == pytest.approx(0, abs=1e-6), "the reference is the policy without its adapters"
    assert log[1]["kl_k3_nats"] > 0
    assert {one.dtype for one in ran.weights.values()} == {torch.float32}
    save_model(ran.trained, tmp_path / "model", start_of(base, kind), True, AutoModelForCausalLM)
    policy = LanguageModel(ran.trained.trainer.model.policy.eval(), start.conversation, True)
    merged = load_language_model(ModelPointer(path=str(tmp_path / "model"), layout="chat"))
    assert scores(merged) == pytest.approx(scores(policy), abs=LOGPROB_TOLERANCE)


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(base: Path, tmp_path: Path) -> None:
    found = []
    for name, parts in (("whole", (4,)), ("parts", (2, 4))):
        for steps in parts:
            policy = load_language_model(start_of(base, "nf4"))
            examples = ranking_examples(policy.conversation, pairs(), policy)
            job = tiny_job(tmp_path / name, max_steps=steps, batch_size=4, runtime={"save_steps": 2})
            trained = train_policy(policy, Dpo(kind="dpo"), DORA, examples, job)
        found.append({name: one.detach() for name, one in trained.trainer.model.named_parameters() if one.requires_grad})
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, atol=1e-6, rtol=1e-5)


def test_a_file_that_asks_for_zero_3_is_refused(base: Path, tmp_path: Path) -> None:
    """Not only its name, which the config's checks know."""
    trainer = learn(start_of(base, "nf4"), LORA, tmp_path, steps=1).trainer
    for stage in (0, 1, 2, 3):
        state = SimpleNamespace(deepspeed_plugin=SimpleNamespace(zero_stage=stage, deepspeed_config={}))
        stub = SimpleNamespace(accelerator=SimpleNamespace(state=state), model=trainer.model)
        with pytest.raises(ConfigError, match="ZeRO-3 cannot shard quantised weights") if stage == 3 else nullcontext():
            require_whole_bytes(stub)


def test_trl_trains_adapters_in_float32(base: Path, tmp_path: Path) -> None:
    policy = load_language_model(start_of(base, "nf4"))
    prompts = [PolicyPrompt(str(n), user(t), policy.conversation.prompt_ids(user(t))) for n, t in enumerate(QUESTIONS[:4])]

    def score(asked: Sequence[SampledPrompt]) -> list[list[float | None]]:
        return vowels(asked)

    objective = Grpo(kind="grpo", samples_per_prompt=4)
    job = tiny_job(tmp_path / "job", max_steps=2, batch_size=4, max_response_tokens=4)
    trained = train_by_trl(policy.model, policy.conversation, objective, DORA, prompts, score, job)
    assert {one.dtype for one in trained.trainer.model.parameters() if one.requires_grad} == {torch.float32}
