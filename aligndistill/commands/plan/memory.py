"""How much memory a training stage takes on each GPU and host, before anything is loaded.

Weights, gradients and Adam's states by the shares of ZeRO (Rajbhandari et al. 2020, section 3): 2 + 2 + 12 bytes a parameter in
bfloat16, 4 + 4 + 8 in float32. Activations are the values that a decoder layer of transformers saves for its backward pass, counted
with torch's hooks on saved tensors: for hidden size H and feed-forward width I, 10 H + 4 I per token with a gate (Llama, Qwen,
Gemma) and 10 H + 5 I without (GPT-2); 4 H of them are always float32. With gradient checkpointing it is H, plus one whole layer.
Gradients of activations, fragmentation, the libraries' buffers and temporary copies while loading are not counted: leave a fifth of
the memory free.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aligndistill.config.models import Lora, Quantize
from aligndistill.config.run import Runtime
from aligndistill.config.training import Training
from aligndistill.processes.deepspeed import config_of

GIB = 2**30
LOGIT_CHUNK = 2**24
"""The number of logits that are computed at a time (`models/logprobs.py`)."""

LOGIT_COPIES = 3
"""The chunk of logits, its log-softmax and its gradient, float32."""

DISTILLED_LOGIT_COPIES = 5
"""Distillation also holds the teacher's chunk and the divergence's gradient. Measured on a CPU, where it is 5.0 to 5.1."""


@dataclass(frozen=True)
class Shape:
    """The properties of a model that an estimate needs.

    Attributes:
        intermediate_size: width of the feed-forward layer; by default four times the hidden size.
        gated: whether the feed-forward layer has a gate.
        linear_shapes: (inputs, outputs) of each linear layer inside the decoder layers, for the size of adapters.
    """

    parameters: int
    layers: int
    hidden_size: int
    vocab_size: int
    linear_shapes: tuple[tuple[int, int], ...] = ()
    intermediate_size: int | None = None
    gated: bool = True

    @property
    def values_per_token(self) -> int:
        """The number of values per token that a layer saves for its backward pass."""
        inner = self.intermediate_size or 4 * self.hidden_size
        return 10 * self.hidden_size + (4 if self.gated else 5) * inner

    def adapter_parameters(self, lora: Lora) -> int:
        """The parameters of low-rank adapters on every linear layer; DoRA has a magnitude for each output, too."""
        return sum(lora.r * (inputs + outputs) + lora.use_dora * outputs for inputs, outputs in self.linear_shapes)

    @property
    def linear_weights(self) -> int:
        """The weights of the linear layers inside the decoder layers: those that are quantised."""
        return sum(inputs * outputs for inputs, outputs in self.linear_shapes)


@dataclass(frozen=True)
class Sharding:
    """The settings of a DeepSpeed config that matter for memory."""

    zero_stage: int = 0
    offloads_optimizer: bool = False
    offloads_weights: bool = False
    uses_deepspeed: bool = False


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of one process: on its GPU, and on the host if something is offloaded."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    host: int

    @property
    def gpu(self) -> int:
        """Total bytes on the GPU."""
        return self.weights + self.gradients + self.optimizer + self.activations


@dataclass(frozen=True)
class OnPolicyMemory:
    """The other models of on-policy training.

    Attributes:
        critic: whether there is a critic of the policy's size.
        frozen_parameters: parameters of the reference and the reward model.
    """

    critic: bool
    frozen_parameters: int


def read_sharding(setting: str | Path | None) -> Sharding:
    """What `runtime.deepspeed` shards and offloads.

    Raises:
        ConfigError: it names a file that does not exist, or that is not a JSON object.
    """
    config = config_of(setting)
    if config is None:
        return Sharding()
    zero = config.get("zero_optimization", {})
    offloads = {part: zero.get(f"offload_{part}", {}).get("device", "none") != "none" for part in ("optimizer", "param")}
    return Sharding(int(zero.get("stage", 0)), offloads["optimizer"], offloads["param"], uses_deepspeed=True)


def estimate(
    shape: Shape,
    settings: Training,
    runtime: Runtime,
    sharding: Sharding,
    *,
    lora: Lora | None,
    responses: int,
    processes: int,
    bf16: bool,
    online: OnPolicyMemory | None = None,
    teacher_parameters: int = 0,
    quantize: Quantize | None = None,
    head_alone: bool = False,
) -> MemoryEstimate:
    """One process's memory in training.

    Args:
        responses: responses per prompt.
        online: the other models of on-policy training; None for offline training.
        teacher_parameters: of the frozen model that is distilled; 0 if there is none.
        bf16: whether the machine computes in bfloat16 (GPUs); else everything is float32.
        quantize: of the policy under its adapters; a critic and a reward model are not quantised.
        head_alone: a linear head is trained on a frozen backbone in float32, of which no layer saves anything for a backward pass.
    """
    trained = 2 if online and online.critic else 1
    whole = shape.hidden_size if head_alone else shape.parameters
    trainable = trained * (shape.adapter_parameters(lora) if lora else whole)
    is_frozen = lora is not None or head_alone
    read_when_sampling = (trained * shape.parameters if is_frozen else 0) + (online.frozen_parameters if online else 0)
    shape = replace(shape, layers=1) if head_alone else shape
    frozen = read_when_sampling + teacher_parameters
    # DeepSpeed's bfloat16 keeps 16-bit weights, a float32 copy and Adam's two moments; autocast keeps float32 weights.
    half_weights = bf16 and sharding.uses_deepspeed
    per_weight, per_state = (2, 12) if half_weights else (4, 8)
    per_frozen = 2 if bf16 and not head_alone else 4
    saved = round(shape.linear_weights * (per_frozen - quantize.bytes_per_weight)) if quantize else 0

    def cut(size: int, from_stage: int) -> int:
        return size // processes if sharding.zero_stage >= from_stage else size

    weights = cut(trainable * per_weight + frozen * per_frozen - saved, 3)
    gradients = cut(trainable * per_weight, 2)
    optimizer = cut(trainable * per_state, 1)
    host = weights * sharding.offloads_weights + optimizer * sharding.offloads_optimizer
    return MemoryEstimate(
        weights=0 if sharding.offloads_weights else weights,
        gradients=gradients,
        optimizer=0 if sharding.offloads_optimizer else optimizer,
        activations=max(
            activations(shape, settings, runtime, responses, bf16, DISTILLED_LOGIT_COPIES if teacher_parameters else LOGIT_COPIES),
            # ZeRO-3's weights are gathered while answers are sampled and scored.
            (trainable * per_weight + read_when_sampling * per_frozen - saved) if online and sharding.zero_stage == 3 else 0,
        ),
        host=host,
    )


def activations(
    shape: Shape, settings: Training, runtime: Runtime, responses: int, bf16: bool, logit_copies: int = LOGIT_COPIES
) -> int:
    """Bytes that one micro-batch of the longest rows saves for the backward pass, with shared prompts."""
    share = min(runtime.per_device_train_batch_size, settings.batch_size)
    tokens = share * (settings.max_prompt_tokens + responses * settings.max_response_tokens)
    value = 2 if bf16 else 4
    per_layer = tokens * (shape.values_per_token * value + 4 * shape.hidden_size * (4 - value))
    if runtime.gradient_checkpointing:
        saved = tokens * shape.hidden_size * value * shape.layers + per_layer
    else:
        saved = per_layer * shape.layers
    logits = min(LOGIT_CHUNK, share * responses * settings.max_response_tokens * shape.vocab_size)
    return saved + logits * 4 * logit_copies


def shape_of(config: Any) -> Shape:
    """Compute the shape of a transformers config's model without allocating its weights."""
    import torch  # imported here: the arithmetic above does not need it
    from transformers import AutoModelForCausalLM
    from transformers.pytorch_utils import Conv1D

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    linear = tuple(
        (module.nx, module.nf) if isinstance(module, Conv1D) else (module.in_features, module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and name.rpartition(".")[2] not in {"lm_head", "embed_out"}
    )
    return Shape(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        vocab_size=config.vocab_size,
        linear_shapes=linear,
        # GPT-2 and similar models read n_inner alone, even if their config has other widths.
        intermediate_size=config.n_inner if hasattr(config, "n_inner") else getattr(config, "intermediate_size", None),
        gated=any("gate_proj" in name for name, _ in model.named_modules()),
    )
