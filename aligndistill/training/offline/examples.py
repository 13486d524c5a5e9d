"""Rankings as training rows, and rows as batches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from aligndistill.models.conversation import Conversation
from aligndistill.models.groups import GroupedBatch, TokenGroup, collate
from aligndistill.models.tokenise import Limits, PromptWithResponses, Tokenised, tokenise
from aligndistill.records import Ranking

MicroBatch = dict[str, Any]
"""What a training step takes: a `GroupedBatch`'s tensors, whether rows `share` their prompts, and what is learnt beside them."""

BATCH_FIELDS = tuple(GroupedBatch.__dataclass_fields__)


@dataclass(frozen=True)
class Example:
    """One prompt with its ranked responses, best first.

    Attributes:
        scores: one per response, on the logit scale.
        reference: the reference policy's summed log-probs, nats, for objectives that have one.
    """

    group: TokenGroup
    scores: list[float]
    reference: list[float] | None = None


class Examples(Dataset[Example]):
    """Examples as a map-style data set."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]


@dataclass(frozen=True)
class Collator:
    """Examples -> a micro-batch, with `scores_BK` and, where there is one, `reference_BK`.

    Attributes:
        shares: whether some groups are best laid out with shared prompts.
        shares_prompt: whether they can be.
    """

    pad_id: int
    shares: Callable[[Sequence[TokenGroup]], bool]
    shares_prompt: bool

    def row_tokens(self, example: Example) -> int:
        """Tokens that the model computes for an example, padding left aside."""
        return example.group.tokens(self.shares_prompt)

    def __call__(self, examples: Sequence[Example]) -> MicroBatch:
        """Pad and stack."""
        groups = [example.group for example in examples]
        share = self.shares(groups)
        batch = collate(groups, self.pad_id, share)
        tensors: MicroBatch = {name: getattr(batch, name) for name in BATCH_FIELDS}
        tensors["share"] = share
        tensors["scores_BK"] = _padded([example.scores for example in examples])
        if examples[0].reference is not None:
            tensors["reference_BK"] = _padded([example.reference or [] for example in examples])
        return tensors


def grouped_batch(tensors: MicroBatch) -> GroupedBatch:
    """The `GroupedBatch` in a collated dict."""
    return GroupedBatch(**{name: tensors[name] for name in BATCH_FIELDS})


def _padded(rows: Sequence[Sequence[float]]) -> Tensor:
    width = max(len(row) for row in rows)
    return torch.tensor([[*row, *[0.0] * (width - len(row))] for row in rows])


def exchange_of(ranking: Ranking) -> PromptWithResponses:
    """A ranking's prompt and responses, to be tokenised."""
    return PromptWithResponses(ranking.messages, [r.text for r in ranking.responses], [r.finish for r in ranking.responses])


def tokenise_rankings(conversation: Conversation, rankings: Sequence[Ranking], limits: Limits) -> Tokenised:
    """Rankings as token groups, in the order given."""
    return tokenise(conversation, map(exchange_of, rankings), limits)
