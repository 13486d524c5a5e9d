"""What is kept of prompts and samples while they are decoded: one copy of a prompt's keys and values, or one for each sample."""

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from aligndistill.models.attention import flash, for_queries, one_softmax, unread_mask
from aligndistill.models.groups import additive


class RepeatedPrompts:
    """The prompts' keys and values, once for each sample: right for every model."""

    def __init__(self, prefilled: DynamicCache, mask_BP: Tensor, repeats: int) -> None:
        prefilled.batch_repeat_interleave(repeats)
        self._cache, self._mask_NT = prefilled, mask_BP.repeat_interleave(repeats, 0)

    def keep(self, live: Tensor) -> None:
        """Forget all samples but these."""
        self._cache.batch_select_indices(live)
        self._mask_NT = self._mask_NT[live]

    def for_next_token(self) -> dict[str, Any]:
        """The model's arguments for the samples' next tokens."""
        self._mask_NT = torch.cat([self._mask_NT, self._mask_NT.new_ones(len(self._mask_NT), 1)], dim=-1)
        return {"past_key_values": self._cache, "attention_mask": self._mask_NT}


class SharedPrompts:
    """A cache for decoding several samples of each prompt: the prompts' keys and values are there once, each sample's apart.

    transformers calls `update` as it does with a cache of its own; what that returns is the samples' part alone, and
    `attention.grouped_attention` adds the prompts'.

    Shapes: B prompts, N live samples, M most live samples of a prompt, G heads of keys, J heads of queries for each of those.
    """

    def __init__(self, prefilled: DynamicCache, mask_BP: Tensor, repeats: int, max_new_tokens: int) -> None:
        """Take up a prefilled cache, and which of its places are no padding."""
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
        """Forget all samples but these."""
        self._own = [tuple(x[live] for x in layer) for layer in self._own]
        self._prompt_N = self._prompt_N[live]
        self._place_N, self._most = _places(self._prompt_N)

    def for_next_token(self) -> dict[str, Any]:
        """The model's arguments for the samples' next tokens."""
        return {"past_key_values": self, "attention_mask": unread_mask(self._dtype), "prompts": self}

    def get_seq_length(self, *_: Any) -> int:
        """Tokens per row, as transformers counts them."""
        return int(self._prompts[0][0].shape[2]) + self._written

    def update(self, key_NG1D: Tensor, value_NG1D: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Add a token's keys and values of one layer; layers come in order."""
        keys, values = self._own[layer]
        if layer == 0:
            self._written += 1
        keys[:, :, self._written - 1], values[:, :, self._written - 1] = key_NG1D[:, :, 0], value_NG1D[:, :, 0]
        return keys[:, :, : self._written], values[:, :, : self._written]

    def attention(self, q_NA1D: Tensor, k_NGTD: Tensor, v_NGTD: Tensor, layer: int, scale: float | None) -> Tensor:
        """(N, 1, A, D)."""
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


def _places(prompt_N: Tensor) -> tuple[Tensor, int]:
    """Each sample's number among the live ones of its prompt, and the largest count; samples of a prompt are neighbours."""
    _, counts_U = prompt_N.unique_consecutive(return_counts=True)
    firsts_N = (counts_U.cumsum(0) - counts_U).repeat_interleave(counts_U)
    return torch.arange(len(prompt_N)) - firsts_N, int(counts_U.max())
