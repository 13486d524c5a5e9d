"""Training a reward model on rankings."""

from collections.abc import Sequence
from typing import Any

from aligndistill.config.students import RewardTraining as RewardModelSettings
from aligndistill.models.groups import GroupedBatch
from aligndistill.models.reward import RewardModel, rewards
from aligndistill.objectives.bradley_terry import bradley_terry_loss
from aligndistill.objectives.inputs import Loss
from aligndistill.objectives.length_bias import LengthTerm, fitted_length_term
from aligndistill.objectives.pairs import differences
from aligndistill.training.adapters import with_adapters
from aligndistill.training.fit import Trained, TrainingJob
from aligndistill.training.offline.examples import Collator, Example, MicroBatch, padded
from aligndistill.training.offline.trainer import _train, prompts


def train_reward_model(
    reward_model: RewardModel,
    settings: RewardModelSettings,
    examples: Sequence[Example],
    job: TrainingJob,
    term: LengthTerm | None = None,
) -> Trained:
    """Train a reward model by Bradley-Terry on rankings.

    Args:
        term: of `length_term`: known in training, and no part of the reward model.
    """

    def loss_of_batch(model: Any, batch: GroupedBatch, tensors: MicroBatch) -> Loss:
        return bradley_terry_loss(
            rewards(model, batch, tensors["share"]),
            tensors["scores_BK"],
            batch.valid_BK,
            labels=settings.labels,
            margin=settings.margin,
            centering=settings.centering,
            term_BKK=None if term is None else term.logit(differences(batch.lengths_BK.float())),
        )

    collator = Collator(reward_model.conversation.pad_id, reward_model.shares, reward_model.shares_prompt)
    model = with_adapters(reward_model.model, settings.lora, "SEQ_CLS", job.seed)
    return _train(model, reward_model.conversation.tokenizer, loss_of_batch, prompts, collator, examples, job)


def length_term(settings: RewardModelSettings, examples: Sequence[Example]) -> LengthTerm | None:
    """The length term, fitted on the training rankings; None if the settings ask for none."""
    if not settings.length_debiased:
        return None
    rows = [(one.scores, [len(response) for response in one.group.responses]) for one in examples]
    scores_BK, lengths_BK = padded([scores for scores, _ in rows]), padded([lengths for _, lengths in rows])
    return fitted_length_term(scores_BK, lengths_BK, lengths_BK > 0, labels=settings.labels, margin=settings.margin)
