"""Reward models: a backbone and a linear head with one output, read at each response's last real token, or in the mean over it.

Saved as `AutoModelForSequenceClassification(num_labels=1)`, which `pipeline`, TRL and RewardBench load. They read the score at
the last id that is not padding, so a saved reward model has its own padding token, which is not the end token. A reward model that
reads the mean (`reward_pooling` in its `config.json`) has its rewards here only.

Shapes: B prompts, K responses, N rows, T tokens per row.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import stdev
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from aligndistill.config.students import Pooling
from aligndistill.errors import DataError
from aligndistill.models.conversation import Conversation, Layout
from aligndistill.models.folder import HEADS, require_heads
from aligndistill.models.grouped_model import GroupedModel
from aligndistill.models.groups import GroupedBatch, TokenGroup
from aligndistill.models.load import ModelPointer, from_pretrained, generation_eos_ids, load_tokenizer, local_device
from aligndistill.models.logprobs import causal_lm, hidden_states, places
from aligndistill.models.prompt_sharing import shares_prompt_exactly

PAD_TOKEN = "<|pad|>"

POOLING = "reward_pooling"
"""The key of `config.json` that says `mean`."""

START_REWARD = 0.3
"""The typical size of a new reward model's rewards. Small, so that training does not start by unlearning a random order, and large
enough for the head to give the backbone, or its adapters, a gradient from the first step on: with a head of zeros the quickstart's
reward models were a point less accurate after the same steps, and at a tenth of the learning rate their loss hardly fell.
"""


@dataclass(frozen=True)
class RewardModel(GroupedModel):
    """A sequence classifier with one label, or with one for each member of an ensemble, with its tokenizer and settings."""


def load_reward_model(pointer: ModelPointer, tokenizer: Any = None, members: bool = False) -> RewardModel:
    """Load a reward model: any sequence classifier with one label.

    Args:
        tokenizer: the model's tokenizer, if it is in memory already.
        members: with the heads of an ensemble instead of their mean.

    Raises:
        DataError: no such model, it does not have exactly one label, or it has no members.
    """
    if members:
        require_heads(pointer.path)
    tokenizer = load_tokenizer(pointer) if tokenizer is None else tokenizer
    model = from_pretrained(AutoModelForSequenceClassification, pointer)
    if model.config.num_labels != 1:
        raise DataError(
            f"'{pointer.path}' has {model.config.num_labels} labels; a reward model must have one. "
            "Give a sequence classifier with num_labels=1."
        )
    if members:
        set_heads(model, load_file(Path(pointer.path) / HEADS)["heads_EH"])
    return _wrap(model, tokenizer, pointer.layout)


def new_reward_model(backbone: ModelPointer, seed: int, members: int = 1, pooling: Pooling = "last") -> RewardModel:
    """A language model's backbone with a new random head, whose rewards are about `START_REWARD` for any scale of hidden states.

    So the loss of a pair starts near log 2. Stiennon et al. (2020, appendix) draw the head with standard deviation
    1 / sqrt(hidden size + 1): that is small for hidden states of norm sqrt(hidden size) only.

    Args:
        members: how many such heads.
        pooling: what the head reads: the hidden state of a response's last token, or the mean over its tokens.
    """
    tokenizer = load_tokenizer(backbone)
    model = from_pretrained(AutoModelForSequenceClassification, backbone, num_labels=members).to(local_device())
    set_pooling(model, pooling)
    give_padding_token(model, tokenizer)
    head = model.score.weight
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        head.copy_(torch.randn(head.shape, generator=generator) / hidden_norm(model))
        reward_model = _wrap(model, tokenizer, backbone.layout)  # rows are compared by rewards of size 1
        head.mul_(START_REWARD)
    return reward_model


@torch.no_grad()
def hidden_norm(model: Any) -> float:
    """The median norm of a backbone's last hidden states, of random tokens.

    Not the mean: the first tokens of a row can have norms many times as large.
    """
    generator = torch.Generator().manual_seed(0)
    ids_NT = torch.randint(model.config.get_text_config().vocab_size, (4, 32), generator=generator).to(local_device())
    positions_NT = torch.arange(ids_NT.shape[1], device=ids_NT.device).expand_as(ids_NT)
    hidden_NTH = hidden_states(model, ids_NT, positions_NT, torch.zeros_like(ids_NT), share=False)
    return float(hidden_NTH.float().norm(dim=-1).median())


def give_padding_token(model: Any, tokenizer: Any) -> None:
    """Ensure that the padding token is not an end token, and that model and tokenizer agree on it."""
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
        raise DataError(
            f"'{type(model).__name__}' has no head named `score`, as other decoders have: it cannot be a reward model here."
        )
    model.to(local_device())
    use_reward_forward(model)
    model.eval()
    conversation = Conversation(tokenizer, layout, generation_eos_ids(model))
    return RewardModel(model, conversation, shares_prompt_exactly(model, conversation.pad_id, rewards))


def use_reward_forward(model: Any) -> None:
    """Extend a sequence classifier's `forward` to accept grouped rows, like `logprobs.use_grouped_forward`."""
    plain_forward = model.forward

    def forward(
        *args: Any, segments_NT: Tensor | None = None, ends_S: Tensor | None = None, share: bool = True, **kwargs: Any
    ) -> Any:
        if segments_NT is None:
            return plain_forward(*args, **kwargs)
        assert ends_S is not None, "grouped rows come with the ends of their responses"
        hidden_NTH = hidden_states(model, kwargs["input_ids"], kwargs["position_ids"], segments_NT, share)
        head = causal_lm(model).score
        dtype = head_dtype(head)
        if pooling_of(model.config) == "mean":
            return response_means(head(hidden_NTH.to(dtype)).float(), segments_NT, ends_S).squeeze(-1)
        return head(places(hidden_NTH, ends_S).to(dtype)).squeeze(-1).float()

    model.forward = forward


def head_dtype(head: Any) -> torch.dtype:
    """The dtype that a head computes in. Under adapters the head is a wrapper: a copy is trained beside the original one."""
    found: torch.dtype = next(one.dtype for name, one in head.named_parameters() if not name.startswith("original_module."))
    return found


def set_pooling(model: Any, pooling: Pooling) -> None:
    """Have the head read the last token of a response, which needs no key in `config.json`, or the mean over the response."""
    model.config.__dict__.pop(POOLING, None)
    if pooling != "last":
        setattr(model.config, POOLING, pooling)


def pooling_of(config: Any) -> Pooling:
    """What the head of a reward model with this config reads."""
    found: Pooling = getattr(config, POOLING, "last")
    return found


def response_means(values_NTE: Tensor, segments_NT: Tensor, ends_S: Tensor) -> Tensor:
    """The mean over each response's tokens, (S, E), of values at all tokens. The head is linear: this is its value of the mean."""
    row_S = ends_S // segments_NT.shape[1]
    own_ST = segments_NT[row_S] == segments_NT.flatten()[ends_S].unsqueeze(-1)
    sums_SE = (values_NTE.index_select(0, row_S) * own_ST.unsqueeze(-1)).sum(1)
    return sums_SE / own_ST.sum(-1, keepdim=True)


def set_heads(model: Any, heads_EH: Tensor) -> None:
    """Give a sequence classifier these heads."""
    old = model.score.weight
    model.score = torch.nn.Linear(heads_EH.shape[1], len(heads_EH), bias=False, dtype=old.dtype, device=old.device)
    model.score.weight.data.copy_(heads_EH)
    model.num_labels = model.config.num_labels = len(heads_EH)


def separate_heads(folder: Path, trust_remote_code: bool = False) -> None:
    """Give a saved ensemble one head, the mean of its members', which other tools load; the members' go into a file beside it."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype="auto", trust_remote_code=trust_remote_code)
    heads_EH = model.score.weight.detach().float().clone()
    set_heads(model, heads_EH.mean(0, keepdim=True))
    model.save_pretrained(folder)
    save_file({"heads_EH": heads_EH}, folder / HEADS)


def rewards(model: Any, batch: GroupedBatch, share: bool) -> Tensor:
    """The reward of each response: (B, K), 0 where there is none; of an ensemble, the mean."""
    return member_rewards(model, batch, share).mean(-1)


def member_rewards(model: Any, batch: GroupedBatch, share: bool) -> Tensor:
    """The reward of each response by each of E members: (B, K, E), 0 where there is no response. E is 1 without an ensemble."""
    rewards_S = model(
        input_ids=batch.input_ids_NT,
        position_ids=batch.positions_NT,
        segments_NT=batch.segments_NT,
        ends_S=batch.ends_S,
        share=share,
    )
    rewards_SE = rewards_S.view(len(rewards_S), -1)
    rewards_BKE = rewards_SE.new_zeros((*batch.valid_BK.shape, rewards_SE.shape[1]))
    found: Tensor = rewards_BKE.masked_scatter(batch.valid_BK.unsqueeze(-1).expand_as(rewards_BKE), rewards_SE)
    return found


@dataclass(frozen=True)
class GroupRewards:
    """The rewards of one group's responses, with the group's place in the given list.

    Attributes:
        members: for each response, the rewards by the members of an ensemble; one each without one.
    """

    index: int
    rewards: list[float]
    members: list[list[float]]

    @property
    def deviations(self) -> list[float]:
        """The standard deviation of each response's reward over the members; 0 for one member."""
        return [stdev(of_response) if len(of_response) > 1 else 0.0 for of_response in self.members]


@torch.no_grad()
def score_rewards(reward_model: RewardModel, groups: Sequence[TokenGroup], batch_size: int) -> Iterator[GroupRewards]:
    """Compute the rewards of groups; yields them in any order."""
    for laid_out in reward_model.batches(groups, batch_size):
        rewards_BKE = member_rewards(reward_model.model, laid_out.batch, laid_out.share)
        means, members = rewards_BKE.mean(-1).tolist(), rewards_BKE.tolist()
        for row, i in enumerate(laid_out.indices):
            count = len(groups[i].responses)
            yield GroupRewards(i, means[row][:count], members[row][:count])
