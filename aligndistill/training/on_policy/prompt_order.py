"""The order in which on-policy training goes through its prompts. It depends on the seed alone."""

import hashlib
from typing import Any

import torch


def shuffled(count: int, *seed: Any) -> list[int]:
    """A permutation of `range(count)` that depends on the seed alone."""
    digest = hashlib.sha256(":".join(map(str, seed)).encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    order: list[int] = torch.randperm(count, generator=generator).tolist()
    return order


def prompts_in_turn(count: int, seed: int, start: int, stop: int) -> list[int]:
    """Which prompt is at each of the places from `start` up to `stop`: all prompts repeatedly, each time in a new order."""
    found: list[int] = []
    for place in range(start, stop):
        if not found or place % count == 0:
            order = shuffled(count, seed, "prompts", place // count)
        found.append(order[place % count])
    return found
