"""The estimate against sums worked out by hand, and against what torch holds."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig

from aligndistill.commands.plan.memory import (
    GIB,
    MemoryEstimate,
    OnPolicyMemory,
    Shape,
    Sharding,
    estimate,
    read_sharding,
    shape_of,
)
from aligndistill.config.models import Lora, Quantize
from aligndistill.config.run import Runtime
from aligndistill.config.training import Training
from aligndistill.models.groups import collate
from aligndistill.models.logprobs import token_logprobs
from aligndistill.training.adapters import with_adapters
from tests.tiny_models import random_groups, tiny_language_model, tiny_model

CONFIGS = Path(__file__).parents[2] / "configs" / "deepspeed"
SEVEN_B = Shape(parameters=7_000_000_000, layers=32, hidden_size=4096, vocab_size=32_000, linear_shapes=((4096, 4096),) * 128)
SETTINGS = Training(max_prompt_tokens=512, max_response_tokens=512, batch_size=64)


def of(sharding: Sharding, **more: Any) -> MemoryEstimate:
    keywords: dict[str, Any] = {"lora": None, "responses": 2, "processes": 8, "bf16": True, **more}
    return estimate(SEVEN_B, SETTINGS, Runtime(per_device_train_batch_size=1), sharding, **keywords)


def test_the_table_of_the_zero_paper() -> None:
    # Rajbhandari et al. 2020, table 1, 7.5 B on 64 GPUs: 120, 31.4, 16.6, 1.9 GB a GPU
    shape = Shape(7_500_000_000, 1, 1, 1)
    expected = {0: 120.0, 1: 31.4, 2: 16.6, 3: 1.88}
    for stage, gigabytes in expected.items():
        sharding = Sharding(stage, uses_deepspeed=True)
        found = estimate(shape, SETTINGS, Runtime(), sharding, lora=None, responses=2, processes=64, bf16=True)
        assert (found.weights + found.gradients + found.optimizer) / 1e9 == pytest.approx(gigabytes, rel=0.01)


def test_without_deepspeed_all_is_float32_and_whole() -> None:
    found = of(Sharding())
    assert (found.weights, found.gradients, found.optimizer, found.host) == (28e9, 28e9, 56e9, 0)


def test_adapters_have_gradients_and_the_base_has_none() -> None:
    found = of(Sharding(2, uses_deepspeed=True), lora=Lora(r=8))
    trainable = 128 * 8 * 8192
    assert found.weights == 7_000_000_000 * 2 + trainable * 2
    assert found.gradients == trainable * 2 // 8
    assert found.optimizer == trainable * 12 // 8


def test_what_is_offloaded_lies_on_the_host() -> None:
    on_gpu, offloaded = of(Sharding(3, uses_deepspeed=True)), of(read_sharding(CONFIGS / "zero3_offload.json"))
    assert offloaded.host == on_gpu.weights + on_gpu.optimizer
    assert offloaded.gpu == on_gpu.gradients + on_gpu.activations


def test_checkpointing_keeps_one_layer_and_the_borders() -> None:
    whole = of(Sharding()).activations
    logits = 2**24 * 4 * 3
    tokens = 512 + 2 * 512
    layer = tokens * ((10 + 16) * 4096 * 2 + 4 * 4096 * 2)
    assert whole - logits == layer * 32
    runtime = Runtime(per_device_train_batch_size=1, gradient_checkpointing=True)
    less = estimate(SEVEN_B, SETTINGS, runtime, Sharding(), lora=None, responses=2, processes=8, bf16=True).activations
    assert less - logits == 2 * tokens * 4096 * 32 + layer
    assert 10 < whole / GIB < 12


@pytest.mark.parametrize("file", sorted(path.name for path in CONFIGS.glob("*.json")))
def test_every_file_of_ours_is_read(file: str) -> None:
    found = read_sharding(CONFIGS / file)
    assert found.zero_stage == int(file[4])
    assert found.offloads_optimizer == ("offload" in file)
    assert found.offloads_weights == (file == "zero3_offload.json")
    assert json.loads((CONFIGS / file).read_text())["zero_optimization"]["stage"] == found.zero_stage


def test_a_model_is_counted_as_it_is_made() -> None:
    model = tiny_model("llama", tie_word_embeddings=True)
    assert isinstance(model.config, LlamaConfig)
    found = shape_of(model.config)
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())
    linears = [m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and n != "lm_head"]
    assert found.adapter_parameters(Lora(r=4)) == sum(4 * (m.in_features + m.out_features) for m in linears)
    with_magnitudes = found.adapter_parameters(Lora(r=4, use_dora=True))
    assert with_magnitudes == found.adapter_parameters(Lora(r=4)) + sum(m.out_features for m in linears)
    assert found.linear_weights == sum(m.weight.numel() for m in linears)


@pytest.mark.parametrize(
    ("quantize", "bits"), [(Quantize(kind="nf4"), 4.127), (Quantize(kind="nf4", double=False), 4.5), (Quantize(kind="int8"), 8.0)]
)
def test_quantised_linear_layers_take_their_bits_and_the_rest_its_dtype(quantize: Quantize, bits: float) -> None:
    whole, small = of(Sharding(), lora=Lora()), of(Sharding(), lora=Lora(), quantize=quantize)
    linear = 128 * 4096 * 4096
    assert whole.weights - small.weights == pytest.approx(linear * (2 - bits / 8), rel=1e-4)
    assert (small.gradients, small.optimizer, small.activations) == (whole.gradients, whole.optimizer, whole.activations)


def test_ppo_has_a_critic_a_reference_and_a_reward_model_beside_the_policy() -> None:
    dpo, beside = of(Sharding(2, uses_deepspeed=True)), OnPolicyMemory(critic=True, frozen_parameters=14_000_000_000)
    ppo = of(Sharding(2, uses_deepspeed=True), online=beside)
    assert ppo.weights == 2 * dpo.weights + 14_000_000_000 * 2
    assert (ppo.gradients, ppo.optimizer, ppo.activations) == (2 * dpo.gradients, 2 * dpo.optimizer, dpo.activations)
    sharded = of(Sharding(3, uses_deepspeed=True), online=beside)
    assert sharded.weights == ppo.weights // 8
    assert sharded.activations == ppo.weights  # whole while it samples
    with_adapters = of(Sharding(2, uses_deepspeed=True), online=OnPolicyMemory(True, 7_000_000_000), lora=Lora(r=8))
    assert with_adapters.weights == (3 * 7_000_000_000 + 2 * 128 * 8 * 8192) * 2


def kept_bytes(shape: str, layers: int, lora: bool) -> int:
    """What torch keeps for the backward pass, without weights."""
    lm = tiny_language_model(shape, **({"n_layer": layers} if shape == "gpt2" else {"num_hidden_layers": layers}), **WIDER[shape])
    model = with_adapters(lm.model, Lora(r=2, lora_dropout=0.0) if lora else None, "CAUSAL_LM", 0).train()
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        token_logprobs(model, collate(random_groups([(32, [16, 16])] * 2), 0, share=True), share=True)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


WIDER: dict[str, dict[str, int]] = {
    "llama": {"hidden_size": 64, "intermediate_size": 160, "num_key_value_heads": 4},
    "qwen2": {"hidden_size": 64, "intermediate_size": 256, "num_key_value_heads": 4},
    "gpt2": {"n_embd": 64, "n_positions": 128},
}


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("shape", WIDER)
def test_a_layer_keeps_what_is_estimated(shape: str, lora: bool) -> None:
    one_layer = kept_bytes(shape, 3, lora) - kept_bytes(shape, 2, lora)
    values = shape_of(tiny_model(shape, **WIDER[shape]).config).values_per_token
    assert one_layer == pytest.approx(4 * values * 2 * 64, rel=0.1)


def test_a_head_alone_has_a_gradient_of_a_row_and_saves_one_layer() -> None:
    whole, alone = of(Sharding()), of(Sharding(), head_alone=True)
    assert alone.gradients == SEVEN_B.hidden_size * 4
    assert alone.optimizer == SEVEN_B.hidden_size * 8
    assert alone.weights == (SEVEN_B.parameters + SEVEN_B.hidden_size) * 4
    assert alone.activations < whole.activations / 8
