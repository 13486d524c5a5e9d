"""Log-probabilities of a grouped batch: the only module that matches logits with the tokens that they predict.

Only response positions reach the language-model head. No other code of this package shifts labels.

Shapes: B prompts, K responses, R tokens per response, N rows, T tokens per row, H hidden size, V vocabulary, S scored tokens.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from aligndistill.models.attention import FLEX, GROUPED, Blocks, block_mask, unread_mask
from aligndistill.models.groups import GroupedBatch, attention_mask

HEAD_ELEMENTS = 2**24
"""The most logits computed at once, S * V. Larger batches run the head in chunks, recomputed in the backward pass, to save memory.
"""


def token_logprobs(model: Any, batch: GroupedBatch, share: bool, temperature: float = 1.0) -> Tensor:
    """Log-probability of every response token given the tokens before it, nats.

    Args:
        model: a causal language model (plain, peft, or wrapped for DDP or DeepSpeed after `use_grouped_forward`).
        batch: rows laid out by `collate` with the same `share`.
        share: whether the rows share their prompt.
        temperature: divides the logits, as in sampling at that temperature.

    Returns:
        (B, K, R); 0 where there is no token.
    """
    return at_tokens(grouped_forward(model, batch, share, temperature=temperature), batch)


@dataclass(frozen=True)
class Beside:
    """Another model at the scored tokens, whose logits are compared with the model's own, a chunk of them at a time.

    Attributes:
        states_SX: the input of the other model's head where each token is predicted.
        head: that head: (C, X) to logits (C, V). It is called without gradients, and again in the backward pass.
        compare: the model's logits_CV in float32, before a temperature, and the other's to values_C, such as a divergence, or to
            several of each position, values_CX.
        alone: whether only `compare` is differentiated: then nothing is kept for the gradient of the model's own log-probabilities.
    """

    states_SX: Tensor
    head: Callable[[Tensor], Tensor]
    compare: Callable[[Tensor, Tensor], Tensor]
    alone: bool = False

    def values(self, logits_CV: Tensor, states_CX: Tensor) -> Tensor:
        """The values of a chunk."""
        with torch.no_grad():
            others_CV = self.head(states_CX)
        return self.compare(logits_CV, others_CV)


def logprobs_beside(
    model: Any, batch: GroupedBatch, share: bool, beside: Beside, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """logprobs_S of the response tokens, as in `token_logprobs` but in a row, and values_S of the comparison with another model."""
    logprobs_S, values_S = grouped_forward(model, batch, share, beside=beside, temperature=temperature)
    return logprobs_S, values_S


def grouped_forward(model: Any, batch: GroupedBatch, share: bool, **more: Any) -> Any:
    """Call a model (see `use_grouped_forward`), or a module around one that takes the same, with a batch."""
    return model(
        input_ids=batch.input_ids_NT,
        position_ids=batch.positions_NT,
        segments_NT=batch.segments_NT,
        predictors_S=batch.predictors_S,
        targets_S=batch.targets_S,
        share=share,
        **more,
    )


def at_tokens(values_S: Tensor, batch: GroupedBatch) -> Tensor:
    """One value per scored token, in its place: (B, K, R), 0 where there is no token."""
    values_BKR = torch.zeros(batch.tokens_BKR.shape, dtype=values_S.dtype, device=values_S.device)
    return values_BKR.masked_scatter(batch.tokens_BKR, values_S)


def places(values_NTX: Tensor, places_S: Tensor) -> Tensor:
    """What stands at these places of the flattened rows, (S, X), by an operator whose gradient is the same to the bit every time.

    A shared prompt's last token is read once for each response, so its gradient is a sum. On CPUs the gradient of `values[places]`
    adds up in whatever order torch's threads arrive; that of `index_select` goes through the places one by one, and is no slower.
    On GPUs it is the other way round: the first sorts the places, the second adds as threads arrive.
    """
    flat = values_NTX.flatten(0, 1)
    return flat.index_select(0, places_S) if flat.device.type == "cpu" else flat[places_S]


@dataclass
class Backbone:
    """Whether calling a model's backbone and head separately was verified to equal its own forward pass."""

    verified: bool = False


def use_grouped_forward(model: Any) -> Backbone:
    """Extend a causal language model's `forward` to accept grouped rows besides its usual inputs.

    The model object is the same, so saving, peft, gradient checkpointing, DDP and DeepSpeed work as for any model: they call
    `forward`, and every layer is called through its module.

    Returns:
        The switch to set once the backbone has been verified (see `prompt_sharing`). Until then separate rows use the model's own
        forward pass, which projects every position through the head but is always correct.

    The new forward returns logprobs_S; with `entropy` it returns (logprobs_S, entropy_S), and with a `value_head` it adds values_S,
    that head's output where each token is predicted; so it does with `beside`: the values of its comparison.
    """
    backbone = Backbone()
    plain_forward = model.forward

    def forward(
        *args: Any,
        segments_NT: Tensor | None = None,
        predictors_S: Tensor | None = None,
        targets_S: Tensor | None = None,
        share: bool = True,
        temperature: float = 1.0,
        entropy: bool = False,
        value_head: Any = None,
        beside: Beside | None = None,
        **kwargs: Any,
    ) -> Any:
        if segments_NT is None:
            return plain_forward(*args, **kwargs)
        assert predictors_S is not None and targets_S is not None
        rows = {"input_ids_NT": kwargs["input_ids"], "positions_NT": kwargs["position_ids"], "segments_NT": segments_NT}
        if not share and not backbone.verified:
            mask_NT = (segments_NT >= 0).long()
            output = plain_forward(
                input_ids=kwargs["input_ids"], attention_mask=mask_NT, use_cache=False, output_hidden_states=value_head is not None
            )
            hidden_SH = places(output.hidden_states[-1], predictors_S) if value_head is not None else None
            logits_SV = places(output.logits, predictors_S)
            chunk = len(targets_S) if beside is None else _chunk_size(causal_lm(model).get_output_embeddings())
            outputs = _in_chunks(lambda logits_CV: logits_CV, logits_SV, targets_S, chunk, temperature, entropy, beside)
        else:
            hidden_SH = places(hidden_states(model, **rows, share=share), predictors_S)
            outputs = head_outputs(causal_lm(model).get_output_embeddings(), hidden_SH, targets_S, temperature, entropy, beside)
        if value_head is not None and hidden_SH is not None:
            values_S1 = value_head(hidden_SH.to(next(value_head.parameters()).dtype))  # trained in float32 on any backbone
            outputs = (*outputs, values_S1.squeeze(-1).float())
        return outputs if len(outputs) > 1 else outputs[0]

    model.forward = forward
    return backbone


def hidden_states(model: Any, input_ids_NT: Tensor, positions_NT: Tensor, segments_NT: Tensor, share: bool) -> Tensor:
    """The backbone's last hidden states (N, T, H) of rows laid out by `collate` with the same `share`."""
    backbone = causal_lm(model).base_model
    dtype = next(backbone.parameters()).dtype
    if not share:
        # Rows are padded on the right: under causal attention no token sees padding, and without a mask the kernel skips half.
        output = backbone(input_ids=input_ids_NT, use_cache=False)
    elif backbone.config._attn_implementation == GROUPED:
        blocks, mask_1111 = Blocks.of(segments_NT, dtype), unread_mask(dtype)
        output = backbone(
            input_ids=input_ids_NT, attention_mask=mask_1111, position_ids=positions_NT, use_cache=False, blocks=blocks
        )
    else:
        mask = block_mask(segments_NT) if backbone.config._attn_implementation == FLEX else attention_mask(segments_NT, dtype)
        output = backbone(input_ids=input_ids_NT, attention_mask=mask, position_ids=positions_NT, use_cache=False)
    hidden_NTH: Tensor = output.last_hidden_state
    return hidden_NTH


def head_outputs(
    head: Any,
    hidden_SH: Tensor,
    targets_S: Tensor,
    temperature: float = 1.0,
    entropy: bool = False,
    beside: Beside | None = None,
) -> tuple[Tensor, ...]:
    """`read_logits` of the head's logits, and the values of `beside`, a chunk of positions at a time.

    The head is called as a module once, for any number of chunks: under ZeRO-3 every call gathers its weights from all processes,
    and other processes may have other numbers of chunks.
    """
    if not hasattr(head, "reads_chunks"):
        _use_chunked_head(head)
    found: tuple[Tensor, ...] = head(hidden_SH, targets_S=targets_S, temperature=temperature, entropy=entropy, beside=beside)
    return found


def logit_chunks(model: Any, batch: GroupedBatch, apart: bool, chunk: int | None = None) -> Iterator[Tensor]:
    """The logits (C, V) that predict the response tokens of a batch, in their order and a chunk at a time, without gradients.

    Args:
        model: a causal language model after `use_grouped_forward`, not sharded.
        batch: separate rows.
        apart: whether backbone and head may be called separately, see `Backbone`. Else each row goes alone through the model's own
            forward pass, and a chunk is all of a row's tokens.
        chunk: tokens at a time, where the head is called separately; by default as many as its size allows.
    """
    if apart:
        rows = {"input_ids_NT": batch.input_ids_NT, "positions_NT": batch.positions_NT, "segments_NT": batch.segments_NT}
        hidden_SH = places(hidden_states(model, **rows, share=False), batch.predictors_S)
        head = causal_lm(model).get_output_embeddings()
        for hidden_CH in hidden_SH.split(chunk or _chunk_size(head)):
            yield head(hidden_CH)
        return
    keeps = "logits_to_keep" in inspect.signature(type(causal_lm(model)).forward).parameters
    row_tokens = (batch.segments_NT >= 0).sum(-1).tolist()
    responses = batch.lengths_BK[batch.valid_BK].tolist()
    for row, (tokens, written) in enumerate(zip(row_tokens, responses, strict=True)):
        kept = {"logits_to_keep": written + 1} if keeps else {}
        output = model(input_ids=batch.input_ids_NT[row : row + 1, :tokens], use_cache=False, **kept)
        yield output.logits[0, -written - 1 : -1]


def paired_logit_chunks(models: Sequence[Any], batch: GroupedBatch, apart: bool) -> Iterator[tuple[Tensor, ...]]:
    """`logit_chunks` of several models at the same tokens; their heads may differ in size."""
    chunk = min(_chunk_size(causal_lm(model).get_output_embeddings()) for model in models)
    return zip(*(logit_chunks(model, batch, apart, chunk) for model in models), strict=True)


def _chunk_size(head: Any) -> int:
    """How many positions go through the head at once."""
    return max(HEAD_ELEMENTS // max(int(getattr(head, "out_features", 0)), 1), 64)


def _use_chunked_head(head: Any) -> None:
    plain_forward = head.forward

    def forward(
        hidden_SH: Tensor,
        *,
        targets_S: Tensor | None = None,
        temperature: float = 1.0,
        entropy: bool = False,
        beside: Beside | None = None,
    ) -> Any:
        if targets_S is None:
            return plain_forward(hidden_SH)
        return _in_chunks(plain_forward, hidden_SH, targets_S, _chunk_size(head), temperature, entropy, beside)

    head.forward = forward
    head.reads_chunks = True


def _in_chunks(
    head: Callable[[Tensor], Tensor],
    hidden_SH: Tensor,
    targets_S: Tensor,
    chunk: int,
    temperature: float,
    entropy: bool,
    beside: Beside | None,
) -> tuple[Tensor, ...]:
    def outputs(hidden_CH: Tensor, targets_C: Tensor, states_CX: Tensor | None) -> tuple[Tensor, ...]:
        logits_CV = head(hidden_CH)
        if beside is None or states_CX is None:
            return read_logits(logits_CV, targets_C, temperature, entropy)
        logits_CV = logits_CV.float()  # once for both
        with torch.set_grad_enabled(torch.is_grad_enabled() and not beside.alone):
            read = read_logits(logits_CV, targets_C, temperature, entropy)
        return (*read, beside.values(logits_CV, states_CX))

    states_SX = None if beside is None else beside.states_SX
    if hidden_SH.shape[0] <= chunk:
        return outputs(hidden_SH, targets_S, states_SX)
    chunks = hidden_SH.split(chunk), targets_S.split(chunk)
    parts = [
        checkpoint(outputs, *one, use_reentrant=False) if torch.is_grad_enabled() else outputs(*one)
        for one in zip(*chunks, [None] * len(chunks[0]) if states_SX is None else states_SX.split(chunk), strict=True)
    ]
    return tuple(torch.cat(values) for values in zip(*parts, strict=True))


def read_logits(logits_SV: Tensor, targets_S: Tensor, temperature: float, entropy: bool) -> tuple[Tensor, ...]:
    """Log-probability of each target under the softmax, in float32, nats; with `entropy`, also the softmax's own entropy."""
    logits_SV = logits_SV.float()
    if temperature != 1.0:
        logits_SV = logits_SV / temperature
    logprobs_S, entropy_S = _Read.apply(logits_SV, targets_S, entropy)
    return (logprobs_S, entropy_S) if entropy else (logprobs_S,)


class _Read(torch.autograd.Function):
    """The log-softmax at one token of each row, and, on request, the entropy of each row's softmax.

    Twice as fast as separate torch operations, and it saves one (S, V) tensor for the backward pass instead of two to five.
    """

    @staticmethod
    def forward(ctx: Any, logits_SV: Tensor, targets_S: Tensor, entropy: bool) -> tuple[Tensor, Tensor | None]:
        logprobs_SV = logits_SV.log_softmax(-1)
        entropy_S = -(logprobs_SV.exp().mul_(_finite(logprobs_SV))).sum(-1) if entropy else None
        ctx.save_for_backward(logprobs_SV, targets_S, entropy_S)
        ctx.set_materialize_grads(False)
        return logprobs_SV.gather(-1, targets_S.unsqueeze(-1)).squeeze(-1), entropy_S

    @staticmethod
    def backward(ctx: Any, g_S: Tensor | None, h_S: Tensor | None) -> tuple[Tensor, None, None]:  # type: ignore[override]
        logprobs_SV, targets_S, entropy_S = ctx.saved_tensors
        g_S1 = logprobs_SV.new_zeros(len(targets_S), 1) if g_S is None else g_S.unsqueeze(-1)
        gradient_SV = logprobs_SV.exp()
        if h_S is None:
            gradient_SV.mul_(-g_S1)
        else:  # d entropy / d logit = -p (log p + entropy)
            gradient_SV.mul_(-g_S1 - h_S.unsqueeze(-1) * (_finite(logprobs_SV) + entropy_S.unsqueeze(-1)))
        return gradient_SV.scatter_add_(-1, targets_S.unsqueeze(-1), g_S1), None, None


def _finite(logprobs_SV: Tensor) -> Tensor:
    """The log-probabilities with minus infinity replaced: a probability of 0 adds 0 to the entropy, not nan."""
    return logprobs_SV.clamp(min=torch.finfo(logprobs_SV.dtype).min)


def causal_lm(model: Any) -> Any:
    """The transformers model inside peft's wrapper, or the model itself if there is no wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
