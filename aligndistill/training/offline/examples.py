"""Rankings as training examples, and examples as batches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from aligndistill.models.conversation import Conversation
from aligndistill.models.groups import GroupedBatch, TokenGroup, collate
from aligndistill.models.tokenise import Limits, PromptWithResponses, Tokenised, tokenise
from aligndistill.records import Ranking

T = TypeVar("T")

MicroBatch = dict[str, Any]
"""The input of a training step: a `GroupedBatch`'s tensors, whether rows `share` their prompts, and the targets."""

BATCH_FIELDS = tuple(GroupedBatch.__dataclass_fields__)


@dataclass(frozen=True)
class Mismatched:
    """A prompt with one response to another prompt, for KTO's baseline.

    Attributes:
        reference: the reference policy's summed log-prob of that response, nats.
    """

    group: TokenGroup
    reference: float


@dataclass(frozen=True)
class Example:
    """One prompt with its ranked responses, best first.

    Attributes:
        scores: one per response, on the logit scale.
        reference: the reference policy's summed log-probs, nats, for objectives that have one.
        mismatched: for objectives with a baseline.
    """

    group: TokenGroup
    scores: list[float]
    reference: list[float] | None = None
    mismatched: Mismatched | None = None


class Examples(Dataset[T]):
    """A map-style data set of examples, or of prompts that the policy itself answers."""

    def __init__(self, examples: Sequence[T]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> T:
        return self.examples[index]


@dataclass(frozen=True)
class Collator:
    """Collates examples into a micro-batch, with `scores_BK` and, with a reference, `reference_BK`.

    Attributes:
        shares: whether the given groups are cheaper with shared prompts.
        shares_prompt: whether the model can share prompts.
    """

    pad_id: int
    shares: Callable[[Sequence[TokenGroup]], bool]
    shares_prompt: bool

    def row_tokens(self, example: Example) -> int:
        """Tokens that the model computes for an example, without padding."""
        return example.group.tokens(self.shares_prompt)

    def __call__(self, examples: Sequence[Example]) -> MicroBatch:
        """Pad and stack."""
        groups = [example.group for example in examples]
        share = self.shares(groups)
        batch = collate(groups, self.pad_id, share)
        tensors: MicroBatch = {name: getattr(batch, name) for name in BATCH_FIELDS}
        tensors["share"] = share
        tensors["scores_BK"] = padded([example.scores for example in examples])
        if examples[0].reference is not None:
            tensors["reference_BK"] = padded([example.reference or [] for example in examples])
        return tensors


def grouped_batch(tensors: MicroBatch) -> GroupedBatch:
    """The `GroupedBatch` in a collated dict."""
    return GroupedBatch(**{name: tensors[name] for name in BATCH_FIELDS})


def padded(rows: Sequence[Sequence[float]]) -> Tensor:
    """The rows as one tensor, with zeros behind the shorter ones."""
    width = max(len(row) for row in rows)
    return torch.tensor([[*row, *[0.0] * (width - len(row))] for row in rows])


def exchange_of(ranking: Ranking) -> PromptWithResponses:
    """The prompt and responses of a ranking, for tokenising."""
    return PromptWithResponses(ranking.messages, [r.text for r in ranking.responses], [r.finish for r in ranking.responses])


def tokenise_rankings(conversation: Conversation, rankings: Sequence[Ranking], limits: Limits) -> Tokenised:
    """Rankings as token groups, in the order given."""
    return tokenise(conversation, map(exchange_of, rankings), limits)
