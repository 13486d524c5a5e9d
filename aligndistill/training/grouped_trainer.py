"""The trainer of everything offline: the reward model and every objective on rankings share its loader, forward pass and loop.

`transformers.Trainer` brings resume, schedules, trackers and DeepSpeed; the subclass says what a batch is and what the loss is.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer

from aligndistill.models.groups import GroupedBatch
from aligndistill.objectives.ranked import Loss
from aligndistill.training.examples import grouped_batch
from aligndistill.training.watched import Watched

LossOfBatch = Callable[[Any, GroupedBatch, dict[str, Tensor]], Loss]
"""(model, batch, the collated dict) -> the mean loss over the batch's prompts (or whatever its weight counts)."""

WeightOfBatch = Callable[[dict[str, Tensor]], int]
"""How many things the loss is a mean over, in one collated micro-batch."""


def prompts(tensors: dict[str, Tensor]) -> int:
    """The weight of a loss that is a mean over prompts."""
    return tensors["scores_BK"].shape[0]


def tokens(tensors: dict[str, Tensor]) -> int:
    """The weight of a loss that is a mean over response tokens."""
    return int(tensors["tokens_BKR"].sum())


class GroupedTrainer(Watched, Trainer):  # type: ignore[misc]
    """Trains on grouped batches.

    The loss is the mean over the whole optimiser step, whichever way that is split into micro-batches and over processes.
    """

    stops_after_any_step = True

    def __init__(self, loss_of_batch: LossOfBatch, weight_of_batch: WeightOfBatch = prompts, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._loss_of_batch = loss_of_batch
        self._weight_of_batch = weight_of_batch
        self.loss_is_scaled_for_ga = True

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """This micro-batch's share of the step's loss."""
        assert not return_outputs and num_items_in_batch is not None
        loss = self._loss_of_batch(model, grouped_batch(inputs), inputs)
        self.count_metrics(loss.metrics)
        # Gradients are averaged over processes afterwards, so each one's share is counted that many times.
        share: Tensor = loss.value * (self._weight_of_batch(inputs) * self.accelerator.num_processes / num_items_in_batch)
        return share

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Tensor]], device: torch.device) -> Tensor:
        """The weight of the optimiser step, over all micro-batches and processes."""
        weight = torch.tensor(sum(map(self._weight_of_batch, batch_samples)), device=device)
        total: Tensor = self.accelerator.gather(weight).sum()
        return total
