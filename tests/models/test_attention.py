"""Attention over shared rows, computed block by block, against torch's attention under a mask."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from aligndistill.models.attention import Blocks, grouped_attention
from aligndistill.models.groups import attention_mask, collate
from tests.tiny_models import random_groups

LAYOUTS = {
    "equal": [(6, [4, 4, 4]), (6, [4, 4, 4])],
    "one response": [(5, [7])],
    "equal prompts": [(6, [2, 5]), (6, [3])],
    "ragged": [(7, [4, 6, 1, 3]), (3, [5, 2]), (9, [8]), (1, [1, 7, 2])],
    "a prompt longer than another row": [(30, [2, 3]), (2, [1, 1, 1])],
}


def random_heads(rows: int, heads: int, width: int, dtype: torch.dtype, spread: float, seed: int) -> Tensor:
    """As a model makes them: (rows, width, heads, dimension), transposed."""
    generator = torch.Generator().manual_seed(seed)
    return (spread * torch.randn(rows, width, heads, 8, generator=generator, dtype=dtype)).transpose(1, 2).requires_grad_()


def under_a_mask(query: Tensor, key: Tensor, value: Tensor, segments_NT: Tensor, scaling: float) -> Tensor:
    mask = attention_mask(segments_NT, query.dtype)
    groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
    return ((query @ key.transpose(-1, -2)) * scaling + mask).softmax(-1).matmul(value).transpose(1, 2)


@pytest.mark.parametrize("sizes", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.03)])
def test_the_blocks_are_the_mask(sizes: list[tuple[int, list[int]]], dtype: torch.dtype, tolerance: float) -> None:
    segments_NT = collate(random_groups(sizes), 0, share=True).segments_NT
    rows, width = segments_NT.shape
    query = random_heads(rows, 4, width, dtype, 2.0, seed=1)
    key, value = (random_heads(rows, 2, width, dtype, 2.0, seed=seed) for seed in (2, 3))
    blocks = Blocks.of(segments_NT, dtype)
    found, _ = grouped_attention(SimpleNamespace(), query, key, value, None, scaling=0.5, blocks=blocks)
    exact = [x.detach().double().requires_grad_() for x in (query, key, value)]
    expected = under_a_mask(*exact, segments_NT, 0.5)
    real_NT = segments_NT >= 0
    assert (found - expected)[real_NT].abs().max() < tolerance

    # Every output counts by another weight; padding is not read.
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(4), dtype=dtype) * real_NT[:, :, None, None]
    ours = torch.autograd.grad((found * weights).sum(), (query, key, value))
    theirs = torch.autograd.grad((expected * weights).sum(), exact)
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).abs().max() < 10 * tolerance


def test_scores_far_apart_stay_finite() -> None:
    """A prompt's token may score far above all that a response sees: what is masked out of a part must not overflow in it."""
    segments_NT = collate(random_groups(LAYOUTS["ragged"]), 0, share=True).segments_NT
    rows, width = segments_NT.shape
    query, key, value = (random_heads(rows, 2, width, torch.float32, 30.0, seed=seed) for seed in (1, 2, 3))
    found, _ = grouped_attention(
        SimpleNamespace(), query, key, value, None, scaling=1.0, blocks=Blocks.of(segments_NT, torch.float32)
    )
    real_NT = segments_NT >= 0
    gradients = torch.autograd.grad((found * real_NT[:, :, None, None]).sum(), (query, key, value))
    assert all(one.isfinite().all() for one in (found, *gradients))
    assert (found - under_a_mask(query, key, value, segments_NT, 1.0))[real_NT].abs().max() < 1e-2
