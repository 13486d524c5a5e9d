"""The shape of common decoders from the numbers of their config, without importing torch, which is slow."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from aligndistill.commands.plan.memory import Shape


@dataclass(frozen=True)
class _Decoder:
    """The differences between transformers' architectures with RMS norms and gated feed-forward layers.

    Attributes:
        tied: the default for whether the output layer is the embedding.
        head_dim: the default; None divides the hidden size by the number of heads.
        bias: the attention layers with a bias: `qkv` three of them, `all` four if the config's `attention_bias` is set.
        mlp_bias: whether the config's `mlp_bias` is used.
        norms: the number of norms in a layer.
        head_norms: whether queries and keys are normalised.
    """

    tied: bool = False
    head_dim: int | None = None
    bias: str = "all"
    mlp_bias: bool = False
    norms: int = 2
    head_norms: bool = False


DECODERS = {
    "llama": _Decoder(mlp_bias=True),
    "mistral": _Decoder(bias="none"),
    "qwen2": _Decoder(bias="qkv"),
    "qwen3": _Decoder(head_dim=128, head_norms=True),
    "gemma": _Decoder(tied=True, head_dim=256),
    "gemma2": _Decoder(tied=True, head_dim=256, norms=4),
    "gemma3_text": _Decoder(tied=True, head_dim=256, norms=4, head_norms=True),
}


GPT2_NAMES = {"hidden_size": "n_embd", "num_hidden_layers": "n_layer", "max_position_embeddings": "n_positions"}
"""GPT-2's own names of config keys; transformers accepts both names."""


def shape_from_numbers(config: Mapping[str, Any]) -> Shape | None:
    """The same as `shape_of`; None for other architectures, or if a size is not given."""
    kind = config.get("model_type")
    if config.get("per_layer_config"):  # the layers differ from each other
        return None
    with suppress(KeyError):
        if kind == "gpt2":
            return _gpt2({GPT2_NAMES.get(name, name): value for name, value in config.items()})
        if kind in DECODERS:
            return _gated(DECODERS[kind], config)
    return None


def _gated(decoder: _Decoder, config: Mapping[str, Any]) -> Shape:
    hidden, inner, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    layers, heads = config["num_hidden_layers"], config["num_attention_heads"]
    head = config.get("head_dim", decoder.head_dim) or hidden // heads
    queries, keys = heads * head, (config["num_key_value_heads"] or heads) * head
    attention = ((hidden, queries), (hidden, keys), (hidden, keys), (queries, hidden))
    feed_forward = ((hidden, inner), (hidden, inner), (inner, hidden))
    has_bias = {"none": False, "qkv": True, "all": config.get("attention_bias", False)}[decoder.bias]
    biased: tuple[tuple[int, int], ...] = (attention[:3] if decoder.bias == "qkv" else attention) if has_bias else ()
    if decoder.mlp_bias and config.get("mlp_bias", False):
        biased += feed_forward
    of_layer = sum(inputs * outputs for inputs, outputs in attention + feed_forward) + sum(outputs for _, outputs in biased)
    of_layer += decoder.norms * hidden + (2 * head if decoder.head_norms else 0)
    embeddings = 1 if config.get("tie_word_embeddings", decoder.tied) else 2
    return Shape(
        parameters=embeddings * vocabulary * hidden + layers * of_layer + hidden,
        layers=layers,
        hidden_size=hidden,
        vocab_size=vocabulary,
        linear_shapes=(attention + feed_forward) * layers,
        intermediate_size=inner,
        gated=True,
    )


def _gpt2(config: Mapping[str, Any]) -> Shape | None:
    """Layer norms and biases everywhere, and learned positions."""
    if config.get("add_cross_attention"):
        return None
    hidden, layers, vocabulary = config["n_embd"], config["n_layer"], config["vocab_size"]
    inner = config.get("n_inner")
    width = inner or 4 * hidden
    linear = ((hidden, 3 * hidden), (hidden, hidden), (hidden, width), (width, hidden))
    of_layer = sum(inputs * outputs + outputs for inputs, outputs in linear) + 4 * hidden
    embeddings = 1 if config.get("tie_word_embeddings", True) else 2
    return Shape(
        parameters=(embeddings * vocabulary + config["n_positions"]) * hidden + layers * of_layer + 2 * hidden,
        layers=layers,
        hidden_size=hidden,
        vocab_size=vocabulary,
        linear_shapes=linear * layers,
        intermediate_size=inner,
        gated=False,
    )
