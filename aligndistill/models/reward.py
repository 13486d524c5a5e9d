"""Reward models: a trunk and a linear head with one output, read at each response's last real token.

Saved as `AutoModelForSequenceClassification(num_labels=1)`, which `pipeline`, TRL and RewardBench load. Those read the score at
the last id that is not padding: so a saved reward model has a padding token of its own, never the end token.

Shapes: B prompts, K responses, N rows, T tokens per row.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from aligndistill.errors import DataError
from aligndistill.models.conversation import Conversation, Layout
from aligndistill.models.grouped_model import GroupedModel
from aligndistill.models.groups import GroupedBatch, TokenGroup
from aligndistill.models.load import ModelPointer, from_pretrained, generation_eos_ids, load_tokenizer, local_device
from aligndistill.models.logprobs import causal_lm, hidden_states
from aligndistill.models.prompt_sharing import shares_prompt_exactly

PAD_TOKEN = "<|pad|>"


@dataclass(frozen=True)
class RewardModel(GroupedModel):
    """A sequence classifier with one label, and how it reads conversations."""


def load_reward_model(pointer: ModelPointer) -> RewardModel:
    """Load a finished reward model, ours or anybody's with one label.

    Raises:
        DataError: no such model, or one with more labels than one.
    """
    tokenizer = load_tokenizer(pointer)
    model = from_pretrained(AutoModelForSequenceClassification, pointer)
    if model.config.num_labels != 1:
        raise DataError(f"'{pointer.path}' has {model.config.num_labels} labels; a reward model has one.")
    return _wrap(model, tokenizer, pointer.layout)


def new_reward_model(backbone: ModelPointer, seed: int) -> RewardModel:
    """A language model's trunk with a new head, normal with standard deviation 1 / sqrt(hidden size + 1).

    Small, as in Stiennon et al. (2020, appendix), so that training starts from rewards near zero.
    """
    tokenizer = load_tokenizer(backbone)
    model = from_pretrained(AutoModelForSequenceClassification, backbone, num_labels=1)
    head = model.score
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=generator) / (head.in_features + 1) ** 0.5)
    give_padding_token(model, tokenizer)
    return _wrap(model, tokenizer, backbone.layout)


def give_padding_token(model: Any, tokenizer: Any) -> None:
    """Make sure that padding is no end token, and that model and tokenizer agree on it."""
    ends = generation_eos_ids(model) | {tokenizer.eos_token_id}
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id in ends:
        if tokenizer.unk_token_id is not None and tokenizer.unk_token_id not in ends:
            tokenizer.pad_token = tokenizer.unk_token
        else:
            tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})
            if tokenizer.pad_token_id >= model.get_input_embeddings().num_embeddings:
                model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.config.pad_token_id = tokenizer.pad_token_id


def _wrap(model: Any, tokenizer: Any, layout: Layout) -> RewardModel:
    if not hasattr(model, "score"):
        raise DataError(f"'{type(model).__name__}' keeps its head elsewhere than other decoders; it cannot be a reward model here.")
    model.to(local_device())
    use_reward_forward(model)
    model.eval()
    conversation = Conversation(tokenizer, layout, generation_eos_ids(model))
    return RewardModel(model, conversation, shares_prompt_exactly(model, conversation.pad_id, rewards))


def use_reward_forward(model: Any) -> None:
    """Teach a sequence classifier's `forward` to take grouped rows, as `logprobs.use_grouped_forward` does for a language model."""
    plain_forward = model.forward

    def forward(
        *args: Any, segments_NT: Tensor | None = None, ends_S: Tensor | None = None, share: bool = True, **kwargs: Any
    ) -> Any:
        if segments_NT is None:
            return plain_forward(*args, **kwargs)
        hidden_NTH = hidden_states(model, kwargs["input_ids"], kwargs["position_ids"], segments_NT, share)
        return causal_lm(model).score(hidden_NTH.flatten(0, 1)[ends_S]).squeeze(-1).float()

    model.forward = forward


def rewards(model: Any, batch: GroupedBatch, share: bool) -> Tensor:
    """The reward of each response, read at its last token: (B, K), 0 where there is none."""
    rewards_S = model(
        input_ids=batch.input_ids_NT,
        position_ids=batch.positions_NT,
        segments_NT=batch.segments_NT,
        ends_S=batch.ends_S,
        share=share,
    )
    rewards_BK = torch.zeros(batch.valid_BK.shape, dtype=rewards_S.dtype, device=rewards_S.device)
    return rewards_BK.masked_scatter(batch.valid_BK, rewards_S)


@dataclass(frozen=True)
class GroupRewards:
    """The rewards of one group's responses, with the group's place in the list that was given."""

    index: int
    rewards: list[float]


@torch.no_grad()
def score_rewards(reward_model: RewardModel, groups: Sequence[TokenGroup], batch_size: int) -> Iterator[GroupRewards]:
    """Reward groups, in any order."""
    for laid_out in reward_model.batches(groups, batch_size):
        rewards_BK = rewards(reward_model.model, laid_out.batch, laid_out.share).tolist()
        for row, i in enumerate(laid_out.indices):
            yield GroupRewards(i, rewards_BK[row][: len(groups[i].responses)])
