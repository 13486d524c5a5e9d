"""Key-value caches for decoding several samples per prompt: one copy of a prompt's keys and values, or one per sample.

Shapes: B prompts, P prompt tokens, N live samples, T most new tokens, M places, V vocabulary.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import CompileConfig, DynamicCache, StaticCache

from aligndistill.models.attention import FLEX, flash, for_queries, one_softmax, unread_mask
from aligndistill.models.groups import additive


class Decoding(Protocol):
    """The cache of a batch's prompts and live samples."""

    def keep(self, live: Tensor) -> None:
        """Keep only these samples, in this order."""

    def next_logits(self, tokens_N: Tensor, positions_N: Tensor) -> Tensor:
        """Feed one token of each live sample; returns the logits (N, V) of the next token."""


@contextmanager
def attention_for_decoding(model: Any) -> Iterator[None]:
    """`FLEX` is compiled for whole rows; decoding token by token uses `sdpa`."""
    if model.config._attn_implementation != FLEX:
        yield
        return
    model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        model.set_attn_implementation(FLEX)


class RepeatedPrompts:
    """The prompts' keys and values, repeated for each sample: correct for every model."""

    def __init__(self, model: Any, prefilled: DynamicCache, mask_BP: Tensor, repeats: int) -> None:
        self._model = model
        prefilled.batch_repeat_interleave(repeats)
        self._cache, self._mask_NT = prefilled, mask_BP.repeat_interleave(repeats, 0)

    def keep(self, live: Tensor) -> None:
        """Keep only these samples."""
        self._cache.batch_select_indices(live)
        self._mask_NT = self._mask_NT[live]

    def next_logits(self, tokens_N: Tensor, positions_N: Tensor) -> Tensor:
        """Feed one token of each live sample; returns the logits (N, V) of the next token."""
        self._mask_NT = torch.cat([self._mask_NT, self._mask_NT.new_ones(len(self._mask_NT), 1)], dim=-1)
        return _read(self._model, tokens_N, positions_N, past_key_values=self._cache, attention_mask=self._mask_NT)


class StaticPrompts:
    """`RepeatedPrompts` in tensors of fixed address and shape, so that the decoding step can be compiled.

    Every shape is compiled separately (on a GPU into its own CUDA graph), so there are few: the number of places is a power of two,
    halved when half of them are unused; the length is a multiple of 64.
    """

    def __init__(self, model: Any, prefilled: DynamicCache, mask_BP: Tensor, repeats: int, max_new_tokens: int) -> None:
        self._model = model
        self._step = model.get_compiled_call(CompileConfig(mode="reduce-overhead"))
        prompts, width = mask_BP.shape
        self._length = -(-(width + max_new_tokens) // 64) * 64
        self._mask_MT = torch.nn.functional.pad(mask_BP, (0, self._length - width), value=1)
        self._places_N = torch.arange(prompts, device=mask_BP.device).repeat_interleave(repeats)
        self._cache = self._move([(layer.keys, layer.values) for layer in prefilled.layers])

    @staticmethod
    def takes(prefilled: DynamicCache) -> bool:
        """Whether every layer keeps all tokens: a sliding window would need places that move."""
        return not any(prefilled.is_sliding)

    def keep(self, live: Tensor) -> None:
        """Keep only these samples."""
        self._places_N = self._places_N[live]
        if 2 * len(live) <= len(self._mask_MT):
            written = int(self._cache.get_seq_length())
            self._cache = self._move([(layer.keys[:, :, :written], layer.values[:, :, :written]) for layer in self._cache.layers])

    def next_logits(self, tokens_N: Tensor, positions_N: Tensor) -> Tensor:
        """Feed one token of each live sample; returns the logits (N, V) of the next token."""
        tokens_M, positions_M = (x.new_zeros(len(self._mask_MT)) for x in (tokens_N, positions_N))
        tokens_M[self._places_N], positions_M[self._places_N] = tokens_N, positions_N
        torch.compiler.cudagraph_mark_step_begin()
        logits_MV = _read(self._step, tokens_M, positions_M, past_key_values=self._cache, attention_mask=self._mask_MT)
        return logits_MV[self._places_N]

    def _move(self, layers: list[tuple[Tensor, Tensor]]) -> StaticCache:
        """Move the live samples' keys, values and masks into the smallest sufficient power of two of places; spare places repeat
        the first.
        """
        places = 1 << (len(self._places_N) - 1).bit_length()
        chosen_M = torch.cat([self._places_N, self._places_N[:1].expand(places - len(self._places_N))])
        cache = StaticCache(config=self._model.config, max_cache_len=self._length)
        for layer, (keys, values) in zip(cache.layers, layers, strict=True):
            layer.update(keys[chosen_M], values[chosen_M])
        self._mask_MT = self._mask_MT[chosen_M]
        self._places_N = torch.arange(len(self._places_N), device=chosen_M.device)
        return cache


class SharedPrompts:
    """A cache for decoding several samples of each prompt, with one copy of the prompts' keys and values.

    transformers calls `update` as with its own caches; it returns the samples' part alone, and `attention.grouped_attention` adds
    the prompts' part.

    Shapes: here M is the most live samples of a prompt; G heads of keys, J heads of queries for each of those.
    """

    def __init__(self, model: Any, prefilled: DynamicCache, mask_BP: Tensor, repeats: int, max_new_tokens: int) -> None:
        """Start from a prefilled cache; `mask_BP` marks the places that are not padding."""
        self._model = model
        prompts = [(layer.keys, layer.values) for layer in prefilled.layers]  # (B, G, P, D) each
        self._prompts = prompts
        rows = len(mask_BP) * repeats
        self._own = [tuple(x.new_empty(rows, x.shape[1], max_new_tokens, x.shape[3]) for x in layer) for layer in prompts]
        self._written = 0
        self._prompt_N = torch.arange(len(mask_BP)).repeat_interleave(repeats)
        self._place_N, self._most = _places(self._prompt_N)
        self._dtype = prompts[0][0].dtype
        self._mask_B11P = None if bool(mask_BP.all()) else additive((mask_BP == 0)[:, None, None], self._dtype)

    def keep(self, live: Tensor) -> None:
        """Keep only these samples."""
        self._own = [tuple(x[live] for x in layer) for layer in self._own]
        self._prompt_N = self._prompt_N[live]
        self._place_N, self._most = _places(self._prompt_N)

    def next_logits(self, tokens_N: Tensor, positions_N: Tensor) -> Tensor:
        """Feed one token of each live sample; returns the logits (N, V) of the next token."""
        mask = unread_mask(self._dtype)
        return _read(self._model, tokens_N, positions_N, past_key_values=self, attention_mask=mask, prompts=self)

    def get_seq_length(self, *_: Any) -> int:
        """Tokens per row, as counted by transformers."""
        return int(self._prompts[0][0].shape[2]) + self._written

    def update(self, key_NG1D: Tensor, value_NG1D: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Add a token's keys and values of one layer; layers come in order."""
        keys, values = self._own[layer]
        if layer == 0:
            self._written += 1
        keys[:, :, self._written - 1], values[:, :, self._written - 1] = key_NG1D[:, :, 0], value_NG1D[:, :, 0]
        return keys[:, :, : self._written], values[:, :, : self._written]

    def attention(self, q_NA1D: Tensor, k_NGTD: Tensor, v_NGTD: Tensor, layer: int, scale: float | None) -> Tensor:
        """Attend to the prompts and the samples: (N, 1, A, D)."""
        rows, heads, _, size = q_NA1D.shape
        q_NGJD = q_NA1D.reshape(rows, k_NGTD.shape[1], -1, size)
        keys, values = self._prompts[layer]
        q_BMGJD = q_NGJD.new_zeros(len(keys), self._most, *q_NGJD.shape[1:])
        q_BMGJD[self._prompt_N, self._place_N] = q_NGJD
        q_BGQD = q_BMGJD.transpose(1, 2).flatten(2, 3)
        mask = for_queries(self._mask_B11P, q_BGQD)
        o_BGQD, l_BGQ = flash(q_BGQD, keys, values, 0.0, False, attn_mask=mask, scale=scale)
        o_seen, l_seen = (x.unflatten(2, (self._most, -1)).transpose(1, 2)[self._prompt_N, self._place_N] for x in (o_BGQD, l_BGQ))
        o_own, l_own = flash(q_NGJD, k_NGTD, v_NGTD, 0.0, False, scale=scale)
        o_NGJD, _ = one_softmax(o_seen, l_seen, o_own, l_own)
        return o_NGJD.reshape(rows, 1, heads, size)


def _read(forward: Any, tokens_N: Tensor, positions_N: Tensor, **cache: Any) -> Tensor:
    output = forward(input_ids=tokens_N.unsqueeze(-1), position_ids=positions_N.unsqueeze(-1), use_cache=True, **cache)
    logits_NV: Tensor = output.logits[:, -1]
    return logits_NV


def _places(prompt_N: Tensor) -> tuple[Tensor, int]:
    """Each sample's number among the live ones of its prompt, and the largest count; samples of a prompt are neighbours."""
    _, counts_U = prompt_N.unique_consecutive(return_counts=True)
    firsts_N = (counts_U.cumsum(0) - counts_U).repeat_interleave(counts_U)
    return torch.arange(len(prompt_N)) - firsts_N, int(counts_U.max())
