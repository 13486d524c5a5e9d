"""Linear layers in few bits, by bitsandbytes, that compute the same numbers in sampling, scoring and training.

Without gradients bitsandbytes (0.50) computes other numbers than with them. On CPUs with bfloat16 instructions it repacks 4-bit
weights in the first evaluation; from then on they are computed in bfloat16, and give no gradient to earlier layers. 8-bit layers
round their inputs to 8 bits as well, except in training on a CPU. Then DPO would not start at log 2, nor PPO at ratios of 1. Here
weights are dequantised for each pass, and inputs are never rounded.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from transformers import BitsAndBytesConfig
from transformers.pytorch_utils import Conv1D

from aligndistill.config.models import Quantize
from aligndistill.errors import DataError
from aligndistill.models.folder import require_bitsandbytes
from aligndistill.models.library_imports import import_bitsandbytes


def quantised_arguments(quantize: Quantize, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """The arguments with which `from_pretrained` quantises a model while it loads it.

    Args:
        dtype: of the weights that are not quantised, and in which layers are computed.

    Raises:
        ConfigError: bitsandbytes is not installed.
    """
    require_bitsandbytes()
    import_bitsandbytes()
    if quantize.kind == "nf4":
        settings = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=quantize.double,
            bnb_4bit_compute_dtype=dtype,
        )
    else:
        settings = BitsAndBytesConfig(load_in_8bit=True)
    return {"quantization_config": settings, "device_map": {"": device}}


def use_same_numbers(model: Any, name: str) -> None:
    """Let the layers of a model that was loaded with `quantised_arguments` compute the same in evaluation and in training.

    Args:
        name: of the model, for the error.

    Raises:
        DataError: the model has layers that cannot be saved after dequantising.
    """
    from bitsandbytes.nn import Linear4bit, Linear8bitLt  # only here: it is an optional extra

    for module in model.modules():
        if getattr(module, "source_cls", None) is Conv1D:
            raise DataError(
                f"'{name}' has Conv1D layers, as GPT-2 does, and cannot be quantised: remove start.quantize "
                "and evaluation.quantized."
            )
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
        elif isinstance(module, Linear8bitLt):
            module.forward = partial(_int8_linear, module)


def dequantised_weights(model: Any) -> dict[str, Tensor]:
    """The weights of a model's quantised layers as they are computed with, on the CPU, by the layers' names without adapters.

    Args:
        model: a model after `use_same_numbers`, plain or peft.
    """
    from bitsandbytes.nn import Linear4bit, Linear8bitLt  # only here: it is an optional extra

    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return {
        name.removesuffix(".base_layer"): _weight(module).cpu()
        for name, module in base.named_modules()
        if isinstance(module, Linear4bit | Linear8bitLt)
    }


def _weight(layer: Any) -> Tensor:
    from transformers.integrations.bitsandbytes import dequantize_bnb_weight  # only here: it imports bitsandbytes

    weight: Tensor = dequantize_bnb_weight(layer.weight, getattr(layer, "state", None))
    return weight


def _int8_linear(layer: Any, inputs: Tensor) -> Tensor:
    outputs: Tensor = _FrozenLinear.apply(inputs, layer)
    return outputs


class _FrozenLinear(torch.autograd.Function):
    """A linear layer whose weight is dequantised for each pass, so that no copy of it waits for the backward pass."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, layer: Any) -> Tensor:
        ctx.layer = layer
        bias = None if layer.bias is None else layer.bias.to(inputs.dtype)
        return linear(inputs, _weight(layer).to(inputs.dtype), bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return gradient @ _weight(ctx.layer).to(gradient.dtype), None
