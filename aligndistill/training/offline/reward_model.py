"""Training a reward model on rankings."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from aligndistill.config.students import RewardTraining as RewardModelSettings
from aligndistill.models.groups import GroupedBatch
from aligndistill.models.reward import RewardModel, member_rewards
from aligndistill.objectives.bradley_terry import bradley_terry_loss
from aligndistill.objectives.inputs import Loss
from aligndistill.objectives.length_bias import LengthTerm, fitted_length_term
from aligndistill.objectives.pairs import differences
from aligndistill.records import content_hash
from aligndistill.training.adapters import with_adapters
from aligndistill.training.fit import Trained, TrainingJob
from aligndistill.training.offline.examples import Collator, Example, MicroBatch, padded
from aligndistill.training.offline.trainer import _train, prompts


@dataclass(frozen=True)
class BootstrapCollator(Collator):
    """Adds `weight_BE`: how often a prompt counts for each member of an ensemble.

    Poisson(1) approximates how often a prompt is drawn in a bootstrap of many. The numbers follow from the seed and the prompt, so
    they do not depend on batches, and are the same in every epoch.
    """

    members: int = 1
    seed: int = 0

    def __call__(self, examples: Sequence[Example]) -> MicroBatch:
        """See `Collator`."""
        return {**super().__call__(examples), "weight_BE": torch.stack([self._weights(one) for one in examples])}

    def _weights(self, example: Example) -> Tensor:
        key = content_hash("bootstrap", str(self.seed), *map(str, example.group.prompt))
        generator = torch.Generator().manual_seed(int(key, 16) % 2**63)
        return torch.poisson(torch.ones(self.members), generator=generator)


def train_reward_model(
    reward_model: RewardModel,
    settings: RewardModelSettings,
    examples: Sequence[Example],
    job: TrainingJob,
    term: LengthTerm | None = None,
) -> Trained:
    """Train a reward model by Bradley-Terry on rankings; the members of an ensemble together, each by its own loss.

    Args:
        term: of `length_term`: known in training, and no part of the reward model.
    """

    def loss_of(rewards_BK: Tensor, batch: GroupedBatch, tensors: MicroBatch, weight_B: Tensor | None = None) -> Loss:
        return bradley_terry_loss(
            rewards_BK,
            tensors["scores_BK"],
            batch.valid_BK,
            labels=settings.pair_labels,
            margin=settings.margin,
            centering=settings.centering,
            term_BKK=None if term is None else term.logit(differences(batch.lengths_BK.float())),
            weight_B=weight_B,
        )

    def loss_of_batch(model: Any, batch: GroupedBatch, tensors: MicroBatch) -> Loss:
        rewards_BKE = member_rewards(model, batch, tensors["share"])
        whole = loss_of(rewards_BKE.mean(-1), batch, tensors)
        if settings.ensemble == 1:
            return whole
        weight_BE = tensors["weight_BE"]
        members = [loss_of(rewards_BKE[..., e], batch, tensors, weight_BE[:, e]).value for e in range(settings.ensemble)]
        return Loss(value=torch.stack(members).mean(), metrics=whole.metrics)

    kind = Collator if settings.ensemble == 1 else partial(BootstrapCollator, members=settings.ensemble, seed=job.seed)
    collator = kind(reward_model.conversation.pad_id, reward_model.shares, reward_model.shares_prompt)
    if settings.trains == "head":
        reward_model.model.requires_grad_(False)
        reward_model.model.score.requires_grad_(True)
    model = with_adapters(reward_model.model, settings.lora, "SEQ_CLS", job.seed)
    return _train(model, reward_model.conversation.tokenizer, loss_of_batch, prompts, collator, examples, job)


def length_term(settings: RewardModelSettings, examples: Sequence[Example]) -> LengthTerm | None:
    """The length term, fitted on the training rankings; None if the settings ask for none."""
    if not settings.length_debiased:
        return None
    rows = [(one.scores, [len(response) for response in one.group.responses]) for one in examples]
    scores_BK, lengths_BK = padded([scores for scores, _ in rows]), padded([lengths for _, lengths in rows])
    return fitted_length_term(scores_BK, lengths_BK, lengths_BK > 0, labels=settings.pair_labels, margin=settings.margin)
