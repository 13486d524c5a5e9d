"""Low-rank adapters around a model."""

from typing import Any

import torch

from aligndistill.config.models import Lora


def without_dropout(lora: Lora | None) -> Lora | None:
    """For a policy that learns from its own samples: with dropout, it would not be the policy that sampled."""
    return lora.model_copy(update={"lora_dropout": 0.0}) if lora is not None else None


def with_adapters(model: Any, lora: Lora | None, task: str, seed: int) -> Any:
    """The model itself, or peft's wrapper with new low-rank adapters, which depend on the seed alone.

    What is trained is in float32, whatever the dtype of the weights under it.
    """
    if lora is None:
        return model
    from peft import LoraConfig, get_peft_model  # only here: importing peft takes a second

    torch.manual_seed(seed)  # else the adapters would depend on earlier training in this process
    target = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
    adapted = get_peft_model(
        model,
        LoraConfig(
            r=lora.r,
            lora_alpha=lora.lora_alpha,
            lora_dropout=lora.lora_dropout,
            target_modules=target,
            use_dora=lora.use_dora,
            task_type=task,
        ),
    )
    train_in_float32(adapted)
    return adapted


def train_in_float32(model: Any) -> None:
    """Cast what is trained to float32, before there is an optimiser.

    In bfloat16, whose steps of 0.4 % are larger than most updates, weights silently stop moving. Peft leaves the trained copy of a
    sequence classifier's head in the model's dtype, and TRL casts adapters of quantised models to bfloat16 (trl#7268, #7273).
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def adapts_tied_weights(model: Any) -> bool:
    """Whether a transformers model's head and embeddings are one weight, which adapters on one of them make two when merged."""
    from peft.tuners.lora import LoraLayer  # only here: importing peft takes a second

    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    if head is None or head.weight is not embeddings.weight:
        return False
    return isinstance(head, LoraLayer) or isinstance(embeddings, LoraLayer)


def untie_head(model: Any) -> None:
    """Give a transformers model's head a copy of its weight, so that it shares none with the embeddings."""
    head = model.get_output_embeddings()
    layer = getattr(head, "base_layer", head)
    layer.weight = torch.nn.Parameter(layer.weight.detach().clone(), requires_grad=False)
    for config in (model.config, model.config.get_text_config()):
        config.tie_word_embeddings = False
