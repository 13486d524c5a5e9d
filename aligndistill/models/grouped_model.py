"""What a language model and a reward model have in common: they read groups of responses that may share a prompt."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from aligndistill.models.attention import GROUPED
from aligndistill.models.conversation import Conversation
from aligndistill.models.groups import GroupedBatch, TokenGroup, collate
from aligndistill.models.prompt_sharing import best_shared, sees_all_of, to_device


@dataclass(frozen=True)
class PackedBatch:
    """Some groups as a batch on the model's device.

    Attributes:
        indices: the groups' places in the list that was given.
        share: whether the rows share their prompts.
    """

    indices: list[int]
    batch: GroupedBatch
    share: bool


@dataclass(frozen=True)
class GroupedModel:
    """A model that was taught to take grouped rows, with what is needed to use it.

    Attributes:
        shares_prompt: whether responses may share their prompt's computation (measured, see `sharing`).
    """

    model: Any
    conversation: Conversation
    shares_prompt: bool

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def max_positions(self) -> int | None:
        """The longest sequence the model has positions for, when its config says."""
        positions = getattr(self.model.config, "max_position_embeddings", None)
        return int(positions) if positions else None

    def shares(self, groups: Sequence[TokenGroup]) -> bool:
        """Whether these groups are best laid out with shared prompts: exact here, and cheaper."""
        return self.shares_prompt and best_shared(self.model.config, groups)

    def decodes_shared(self, length: int) -> bool:
        """Whether samples of up to so many tokens, their prompt included, can be decoded on one copy of the prompt's keys."""
        config = self.model.config
        return self.shares_prompt and config._attn_implementation == GROUPED and sees_all_of(config, length)

    def batches(self, groups: Sequence[TokenGroup], batch_size: int) -> Iterator[PackedBatch]:
        """Groups in batches of similar length, longest first, so that little is padded and memory is known at once."""
        for indices in batches_by_length([group.tokens(self.shares_prompt) for group in groups], batch_size):
            chosen = [groups[i] for i in indices]
            share = self.shares(chosen)
            yield PackedBatch(indices, to_device(collate(chosen, self.conversation.pad_id, share), self.device), share)


def batches_by_length(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Indices in batches of similar length, longest first."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
