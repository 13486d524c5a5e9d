"""Attention over rows that share their prompt, computed only where the mask allows it.

With a mask, a row of P prompt and S response tokens costs (P + S)^2 pairs of tokens, most of them masked. Here it costs

    P^2 / 2           prompt tokens see the prompt, causally;
    S * P             response tokens see the prompt ...
    sum of R^2 / 2    ... and their own response, causally,

and no T x T mask is built. The attention of a response token comes from two calls of torch's kernel, whose outputs o and
log-sum-exps l are combined into one softmax as sum of o_i exp(l_i - l), l = log(sum of exp(l_i)). Gradients are exact because each
call's backward pass gets the combined l and o (as in ring attention, Liu et al. 2023).

Shapes: N rows, T tokens per row, A attention heads, D head dimension, P the longest prompt, K responses, R the longest response.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from aligndistill.models.groups import additive, sees

GROUPED = "grouped_sdpa"
"""The name of this attention in transformers. It is `sdpa` for rows that do not share prompts."""

FLEX = "flex_attention"
"""transformers' name for torch's compiled attention, which skips the masked blocks; on accelerators only."""

NEVER_SEEN = 1e30
"""A log-sum-exp so large that probabilities computed with it are 0."""


@dataclass(frozen=True)
class Blocks:
    """The places of prompts and responses in a batch of shared rows.

    Attributes:
        shortest_prompt, longest_prompt: tokens.
        prompt_N1T1: which tokens are of a prompt; None if all prompts are equally long.
        mask_N11P: the additive mask of the prompts' keys; None if all prompts are equally long.
        tokens_NKR: the responses' tokens, as indices into the flattened rows; any token of the row where there is none.
        exists_NKR: which of those exist; None if all do.
        slots_NS: for each token from the shortest prompt's end on, its index into the flattened responses (any for a prompt's).
    """

    shortest_prompt: int
    longest_prompt: int
    prompt_N1T1: Tensor | None
    mask_N11P: Tensor | None
    tokens_NKR: Tensor
    exists_NKR: Tensor | None
    slots_NS: Tensor

    @classmethod
    def of(cls, segments_NT: Tensor, dtype: torch.dtype) -> "Blocks":
        """Build from rows laid out by `groups.collate` with shared prompts, on the CPU."""
        rows, width = segments_NT.shape
        prompts_N = (segments_NT == 0).sum(1)
        shortest, longest = int(prompts_N.min()), int(prompts_N.max())
        responses = max(int(segments_NT.max()), 1)
        lengths_NK = torch.stack([(segments_NT == k + 1).sum(1) for k in range(responses)], 1)
        starts_NK = prompts_N.unsqueeze(1) + lengths_NK.cumsum(1) - lengths_NK
        reach_R = torch.arange(max(int(lengths_NK.max()), 1))
        exists_NKR = reach_R < lengths_NK.unsqueeze(-1)
        firsts_N11 = torch.arange(rows).view(-1, 1, 1) * width
        tokens_NKR = torch.where(exists_NKR, starts_NK.unsqueeze(-1) + reach_R, 0) + firsts_N11
        slots = torch.zeros(rows * width, dtype=torch.long)
        slots[tokens_NKR[exists_NKR]] = torch.arange(exists_NKR.numel()).view_as(exists_NKR)[exists_NKR]
        prompt_N1T1 = mask_N11P = None
        if shortest < longest:
            prompt_N1T1 = (segments_NT == 0)[:, None, :, None]
            beyond_N11P = (torch.arange(longest) >= prompts_N.unsqueeze(1))[:, None, None]
            mask_N11P = additive(beyond_N11P, dtype)
        return cls(
            shortest_prompt=shortest,
            longest_prompt=longest,
            prompt_N1T1=prompt_N1T1,
            mask_N11P=mask_N11P,
            tokens_NKR=tokens_NKR,
            exists_NKR=None if bool(exists_NKR.all()) else exists_NKR,
            slots_NS=slots.view(rows, width)[:, shortest:],
        )


class AttendsToPrompts(Protocol):
    """The attention that decoding on shared prompts passes in."""

    def attention(self, q_NA1D: Tensor, k_NGTD: Tensor, v_NGTD: Tensor, layer: int, scale: float | None) -> Tensor:
        """Attend: queries of A heads, keys and values of G heads, to (N, 1, A, D)."""


def grouped_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    blocks: Blocks | None = None,
    prompts: "AttendsToPrompts | None" = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' `sdpa`; with `blocks`, attention over shared rows; with `prompts`, that of a next token (see `decoding`).

    Queries, keys and values are (N, A, T, D), or fewer heads of keys and values.
    """
    if prompts is not None:
        return prompts.attention(query, key, value, module.layer_idx, scaling), None
    if blocks is None:
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
        return output, None
    repeats = query.shape[1] // key.shape[1]
    query, key = query.to(value.dtype), key.to(value.dtype)  # under autocast, rotary positions are computed in float32
    output_NTAD: Tensor = _Grouped.apply(query, repeat_kv(key, repeats), repeat_kv(value, repeats), blocks, scaling)
    return output_NTAD, None


AttentionInterface.register(GROUPED, grouped_attention)
AttentionMaskInterface.register(GROUPED, sdpa_mask)

flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
"""torch's kernel: from (.., A, Q, D), (.., A, K, D) twice to the output and its log-sum-exp (.., A, Q)."""

_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def one_softmax(o_one: Tensor, l_one: Tensor, o_other: Tensor, l_other: Tensor) -> tuple[Tensor, Tensor]:
    """Combine the outputs and log-sum-exps of two calls."""
    logsumexp = torch.logaddexp(l_one, l_other)
    output = o_one * (l_one - logsumexp).exp().unsqueeze(-1) + o_other * (l_other - logsumexp).exp().unsqueeze(-1)
    return output.to(o_one.dtype), logsumexp


class _Grouped(torch.autograd.Function):
    """Queries, keys and values (N, A, T, D) to the output (N, T, A, D)."""

    @staticmethod
    def forward(ctx: Any, q_NATD: Tensor, k_NATD: Tensor, v_NATD: Tensor, blocks: Blocks, scale: float | None) -> Tensor:
        first, last = blocks.shortest_prompt, blocks.longest_prompt
        q_prompt, k_prompt, v_prompt = (x[:, :, :last] for x in (q_NATD, k_NATD, v_NATD))
        q_rest = q_NATD[:, :, first:]
        o_prompt, l_prompt = flash(q_prompt, k_prompt, v_prompt, 0.0, True, scale=scale)
        mask = for_queries(blocks.mask_N11P, q_rest)
        o_seen, l_seen = flash(q_rest, k_prompt, v_prompt, 0.0, False, attn_mask=mask, scale=scale)
        o_own, l_own = flash(*(_responses(x, blocks) for x in (q_NATD, k_NATD, v_NATD)), 0.0, True, scale=scale)
        o_seen, l_seen, o_prompt, l_prompt = (x.transpose(1, 2) for x in (o_seen, l_seen, o_prompt, l_prompt))
        o_own, l_own = (x.transpose(1, 2).flatten(0, 1)[blocks.slots_NS] for x in (o_own, l_own))
        o_NSAD, l_NSA = one_softmax(o_seen, l_seen, o_own, l_own)
        if blocks.prompt_N1T1 is None:
            o_NTAD, l_NTA = torch.cat([o_prompt, o_NSAD], 1), torch.cat([l_prompt, l_NSA], 1)
        else:
            prompt_NP1 = blocks.prompt_N1T1[:, 0, :last]
            o_NTAD = torch.cat([o_prompt[:, :first], o_NSAD], 1)
            l_NTA = torch.cat([l_prompt[:, :first], l_NSA], 1)
            o_NTAD[:, :last] = torch.where(prompt_NP1.unsqueeze(-1), o_prompt, o_NTAD[:, :last])
            l_NTA[:, :last] = torch.where(prompt_NP1, l_prompt, l_NTA[:, :last])
        ctx.save_for_backward(q_NATD, k_NATD, v_NATD, o_NTAD, l_NTA)
        ctx.blocks, ctx.scale = blocks, scale
        return o_NTAD

    @staticmethod
    def backward(ctx: Any, g_NTAD: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        q_NATD, k_NATD, v_NATD, o_NTAD, l_NTA = ctx.saved_tensors
        blocks: Blocks = ctx.blocks
        first, last = blocks.shortest_prompt, blocks.longest_prompt
        g_NATD, o_NATD, l_NAT = (x.transpose(1, 2) for x in (g_NTAD, o_NTAD, l_NTA))
        q_rest, k_prompt, v_prompt = q_NATD[:, :, first:], k_NATD[:, :, :last], v_NATD[:, :, :last]

        def part(start: int, end: int, of_prompt: bool) -> tuple[Tensor, Tensor, Tensor]:
            """Gradient, output and log-sum-exp of a range of tokens; tokens of the other kind give no gradient."""
            g, o, l = g_NATD[:, :, start:end], o_NATD[:, :, start:end], l_NAT[:, :, start:end]  # noqa: E741
            if blocks.prompt_N1T1 is None:
                return g, o, l
            counts = blocks.prompt_N1T1[:, :, start:end] == of_prompt
            return g * counts, o, l.masked_fill(~counts.squeeze(-1), NEVER_SEEN)

        dq_p, dk_p, dv_p = _gradients((q_NATD[:, :, :last], k_prompt, v_prompt), part(0, last, True), True, None, ctx.scale)
        mask = for_queries(blocks.mask_N11P, q_rest)
        dq_s, dk_s, dv_s = _gradients((q_rest, k_prompt, v_prompt), part(first, q_NATD.shape[2], False), False, mask, ctx.scale)
        g_own, o_own = _responses(g_NATD, blocks), _responses(o_NATD, blocks)
        l_own = _responses(l_NAT.unsqueeze(-1), blocks).squeeze(-1)
        if blocks.exists_NKR is not None:
            exists = blocks.exists_NKR.flatten(0, 1).unsqueeze(1)
            g_own, l_own = g_own * exists.unsqueeze(-1), l_own.masked_fill(~exists, NEVER_SEEN)
        own = tuple(_responses(x, blocks) for x in (q_NATD, k_NATD, v_NATD))
        dq_o, dk_o, dv_o = _gradients(own, (g_own, o_own, l_own), True, None, ctx.scale)
        dq, dk, dv = (torch.zeros_like(g_NTAD, memory_format=torch.contiguous_format) for _ in range(3))
        dq[:, :last] = dq_p.transpose(1, 2)
        dq[:, first:] += dq_s.transpose(1, 2)
        dk[:, :last] = (dk_p + dk_s).transpose(1, 2)
        dv[:, :last] = (dv_p + dv_s).transpose(1, 2)
        for whole, of_own in ((dq, dq_o), (dk, dk_o), (dv, dv_o)):
            whole.flatten(0, 1).index_add_(0, blocks.tokens_NKR.flatten(), of_own.transpose(1, 2).flatten(0, 1))
        return dq.transpose(1, 2), dk.transpose(1, 2), dv.transpose(1, 2), None, None


def _gradients(
    qkv: tuple[Tensor, ...], of_output: tuple[Tensor, Tensor, Tensor], causal: bool, mask: Tensor | None, scale: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    gradient, output, logsumexp = of_output
    found: tuple[Tensor, Tensor, Tensor] = _flash_backward(
        gradient, *qkv, output, logsumexp, 0.0, causal, attn_mask=mask, scale=scale
    )
    return found


def _responses(x_NATD: Tensor, blocks: Blocks) -> Tensor:
    """The responses' tokens, each response as a row: (N K, A, R, D)."""
    return x_NATD.transpose(1, 2).flatten(0, 1)[blocks.tokens_NKR].flatten(0, 1).transpose(1, 2)


def block_mask(segments_NT: Tensor) -> BlockMask:
    """`groups.attention_mask` in the format of `FLEX`."""
    rows, length = segments_NT.shape

    def allowed(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return sees(segments_NT, row, query, key)

    return create_block_mask(allowed, rows, None, length, length, device=str(segments_NT.device))


def for_queries(mask_N11P: Tensor | None, q_NASD: Tensor) -> Tensor | None:
    """A mask of keys, the same for every query, in the shape that the kernel needs."""
    return None if mask_N11P is None else mask_N11P.expand(-1, -1, q_NASD.shape[2], -1)


def unread_mask(dtype: torch.dtype) -> Tensor:
    """A placeholder for a model's `attention_mask`, which `grouped_attention` ignores: models pass a four-dimensional
    mask through.
    """
    return torch.zeros(1, 1, 1, 1, dtype=dtype)
