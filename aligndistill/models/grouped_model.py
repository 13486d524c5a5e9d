"""The base of language models and reward models: they score groups of responses that may share a prompt."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from aligndistill.models.attention import GROUPED
from aligndistill.models.conversation import Conversation
from aligndistill.models.groups import GroupedBatch, TokenGroup, collate
from aligndistill.models.prompt_sharing import best_shared, sees_all_of, to_device

SHORTEST = 0.5
"""Batches for scoring: see `batches_by_length`."""


@dataclass(frozen=True)
class PackedBatch:
    """Some groups as a batch on the model's device.

    Attributes:
        indices: the groups' places in the given list.
        share: whether the rows share their prompts.
    """

    indices: list[int]
    batch: GroupedBatch
    share: bool


@dataclass(frozen=True)
class GroupedModel:
    """A model whose `forward` accepts grouped rows, with its tokenizer and settings.

    Attributes:
        shares_prompt: whether responses may share their prompt's computation (measured, see `prompt_sharing`).
    """

    model: Any
    conversation: Conversation
    shares_prompt: bool

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def tokenizer(self) -> Any:
        """The tokenizer, a Hugging Face one."""
        return self.conversation.tokenizer

    @property
    def max_positions(self) -> int | None:
        """The longest sequence that the model has positions for; None if its config does not say."""
        positions = getattr(self.model.config, "max_position_embeddings", None)
        return int(positions) if positions else None

    @property
    def vocabulary_size(self) -> int:
        """The number of tokens that it has logits for, surplus ones of its head among them."""
        return int(self.model.config.get_text_config().vocab_size)

    def shares(self, groups: Sequence[TokenGroup]) -> bool:
        """Whether shared prompts are exact for these groups, and cheaper."""
        return self.shares_prompt and best_shared(self.model.config, groups)

    def decodes_shared(self, length: int) -> bool:
        """Whether samples of up to this many tokens, including the prompt, can be decoded on one copy of the prompt's keys."""
        config = self.model.config
        return self.shares_prompt and config._attn_implementation == GROUPED and sees_all_of(config, length)

    def batches(self, groups: Sequence[TokenGroup], batch_size: int) -> Iterator[PackedBatch]:
        """Groups in batches of similar length, longest first, so that there is little padding and the first batch needs the most
        memory.
        """
        for indices in batches_by_length([group.tokens(self.shares_prompt) for group in groups], batch_size, SHORTEST):
            chosen = [groups[i] for i in indices]
            share = self.shares(chosen)
            yield PackedBatch(indices, to_device(collate(chosen, self.conversation.pad_id, share), self.device), share)


def batches_by_length(lengths: Sequence[int], batch_size: int, shortest: float = 0.0) -> list[list[int]]:
    """Indices in batches of similar length, longest first.

    Args:
        shortest: no row of a batch is shorter than this share of the longest, so that no more than the rest is padding.
    """
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batches and len(batches[-1]) < batch_size and lengths[i] >= shortest * lengths[batches[-1][0]]:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches
