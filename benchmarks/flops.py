"""How many floating-point operations a piece of work needs, however it is done.

Every token is counted once: a prompt once for all its responses, and no padding. What a side computes more than once (a prompt per
response, activations under checkpointing) does not count, so a share of the machine's rate is one of useful work. Left out are
norms, activations, softmaxes, biases, adapters' own matrices (half a percent at rank 16) and the optimiser.

A forward pass over T tokens, of which S are scored, with Q pairs of a token and one that it sees (itself among them):

    F = 2 M T + 2 H V S + 4 L H Q

M: parameters of the layers' matrices, H: hidden size, V: vocabulary, L: layers. A product with a matrix is 2 operations per
parameter and token; the head is needed for the scored tokens alone; attention is two products (query with key, probability with
value) of 2 H operations per pair and layer.

A backward pass needs as much again for the gradients of inputs, and as much again for those of weights: 3 F for full fine-tuning
(6 per parameter and token). With adapters the frozen matrices have no gradient: 2 F (4 per parameter and token), but attention has
no weights, and its 4 L H Q count three times still. A frozen reference is one forward pass more: F.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.worlds import Shape


def layer_parameters(shape: Shape) -> int:
    """M: queries and output, keys and values, and the three matrices of the gated MLP, in all layers."""
    keys = shape.hidden // shape.heads * (shape.key_value_heads or shape.heads)
    intermediate = shape.intermediate or 4 * shape.hidden
    return shape.layers * (2 * shape.hidden**2 + 2 * shape.hidden * keys + 3 * shape.hidden * intermediate)


def matrix_flops(shape: Shape, tokens: int, scored: int) -> int:
    """2 M T + 2 H V S."""
    return 2 * (layer_parameters(shape) * tokens + shape.hidden * shape.vocabulary * scored)


def attention_flops(shape: Shape, prompt: int, responses: Sequence[int]) -> int:
    """4 L H Q: prompt tokens see the prompt, responses the prompt and themselves, both causally."""
    pairs = prompt * (prompt + 1) // 2 + sum(prompt * length + length * (length + 1) // 2 for length in responses)
    return 4 * shape.layers * shape.hidden * pairs


def dpo_flops(shape: Shape, row: Mapping[str, Any], adapters: bool) -> int:
    """To train on a row, its reference included."""
    prompt, responses = len(row["prompt"]), [len(response) for response in row["responses"]]
    matrices = matrix_flops(shape, prompt + sum(responses), sum(responses))
    return (2 if adapters else 3) * matrices + matrices + (3 + 1) * attention_flops(shape, prompt, responses)


def generation_flops(shape: Shape, prompt: int, new_tokens: int) -> int:
    """To answer a prompt: its last token and all new ones but the last predict one each."""
    read = prompt + new_tokens - 1
    return matrix_flops(shape, read, new_tokens) + attention_flops(shape, read, [])
