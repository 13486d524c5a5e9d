"""The trainer for all offline training: the reward model and every objective on rankings share its loader, forward pass and loop.

`transformers.Trainer` provides resuming, schedules, trackers and DeepSpeed; the subclass defines batches and the loss.
"""

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer

from aligndistill.models.groups import GroupedBatch
from aligndistill.objectives.inputs import Loss
from aligndistill.training import frozen
from aligndistill.training.arguments import training_arguments, within_tokens
from aligndistill.training.checkpointing import CheckpointedTrainer
from aligndistill.training.fit import Trained, TrainingJob, fit
from aligndistill.training.offline.examples import Collator, Example, Examples, MicroBatch, grouped_batch

LossOfBatch = Callable[[Any, GroupedBatch, MicroBatch], Loss]
"""(model, batch, the micro-batch) -> the mean loss over the batch's prompts, or over what the weight counts."""

WeightOfBatch = Callable[[MicroBatch], int]
"""The number of items (prompts or tokens) that the loss of one collated micro-batch is a mean over."""

MeanOfStep = Callable[[Any, Sequence[Example], int, int, torch.device], Tensor]
"""(model, a process's examples of an optimiser step, how many of them count, the number of their micro-batches, device) -> (sum,
count) of a mean. The first ones count; any behind them repeat the first, one for each micro-batch that would have none.
"""


def prompts(tensors: MicroBatch) -> int:
    """The weight of a loss that is a mean over prompts."""
    return len(tensors["scores_BK"])


def tokens(tensors: MicroBatch) -> int:
    """The weight of a loss that is a mean over response tokens."""
    return len(tensors["targets_S"])


class GroupedTrainer(CheckpointedTrainer, Trainer):  # type: ignore[misc]
    """Trains on grouped batches.

    The loss is the mean over the whole optimiser step, however that is split into micro-batches and over processes. The loader
    therefore yields examples, and a process's share of a step is split by length: similar ones share a micro-batch.

    Where the data end within a step, accelerate gives all processes equally many examples by repeating the first ones. Repeats are
    left out. But each process must make as many passes as the others (DDP and ZeRO-3 communicate in them), so one with too few
    examples makes passes that weigh nothing.

    Args:
        mean_of_step: measures the policy or the examples before each step. Every micro-batch gets the mean over all processes as
            `mean_of_step`.
        teacher: a frozen causal language model that the loss reads once per micro-batch; ZeRO-3 shards its layers.
    """

    def __init__(
        self,
        loss_of_batch: LossOfBatch,
        weight_of_batch: WeightOfBatch = prompts,
        mean_of_step: MeanOfStep | None = None,
        *,
        collator: Collator,
        teacher: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(data_collator=list, **kwargs)
        config = frozen.zero3_config(self.accelerator)
        if teacher is not None and config is not None:
            frozen.shard_layers(teacher, config)
        self._loss_of_batch = loss_of_batch
        self._weight_of_batch = weight_of_batch
        self._mean_of_step = mean_of_step
        self._collator = collator
        self.loss_is_scaled_for_ga = True

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list[Any], Any]:
        """The micro-batches of one optimiser step, as many as the loader's, and the weight of the step."""
        given = list(islice(epoch_iterator, num_batches))
        counted = self._rows_of_step()
        rows = [row for batch in given for row in batch][: max(counted, 1)]
        examples = self.examples_of_step(rows, counted > 0)
        examples = [*examples, *examples[:1] * (len(given) - len(examples))]
        lengths = [self._collator.row_tokens(example) for example in examples]
        batches = []
        for indices in split_by_length(lengths, len(given)):  # a repeat is alone: there are no more examples than micro-batches
            batches.append({**self._collator([examples[i] for i in indices]), "counts": indices[0] < counted})
        if self._mean_of_step is not None:
            ours = self._mean_of_step(self.model, examples, counted, len(given), self.args.device)
            total, count = self.accelerator.reduce(ours, reduction="sum")
            for batch in batches:
                batch["mean_of_step"] = total / count
        return batches, self._get_num_items_in_batch(batches, device)

    def _rows_of_step(self) -> int:
        """How many rows of the next step are this process's, without repeats."""
        return rows_dealt(
            len(self.train_dataset),
            self.state.global_step,
            self.accelerator.process_index,
            size=self.args.train_batch_size,
            accumulation=self.args.gradient_accumulation_steps,
            processes=self.accelerator.num_processes,
        )

    def examples_of_step(self, given: list[Any], counts: bool) -> list[Example]:
        """What a process learns from in a step, of what its loader yields: here it is the same.

        Args:
            counts: False if the process has no row in the step, and `given` is one that another process has.
        """
        return given

    def compute_loss(self, model: Any, inputs: MicroBatch, return_outputs: bool = False, num_items_in_batch: Any = None) -> Tensor:
        """This micro-batch's share of the step's loss."""
        assert not return_outputs and num_items_in_batch is not None
        loss = self._loss_of_batch(model, grouped_batch(inputs), inputs)
        weight = self._weight(inputs)
        # what is no number is not counted; all processes must know the same metrics
        self.count_metrics(loss.metrics if inputs["counts"] else {name: seen * torch.nan for name, seen in loss.metrics.items()})
        # Gradients are averaged over processes afterwards, so each share is multiplied by their number.
        share: Tensor = loss.value * (weight * self.accelerator.num_processes / num_items_in_batch)
        return share

    def _get_num_items_in_batch(self, batch_samples: list[MicroBatch], device: torch.device) -> Tensor:
        """The weight of the optimiser step, over all micro-batches and processes."""
        weight = torch.tensor(sum(map(self._weight, batch_samples)), device=device)
        total: Tensor = self.accelerator.gather(weight).sum()
        return total

    def _weight(self, tensors: MicroBatch) -> int:
        return self._weight_of_batch(tensors) if tensors["counts"] else 0


def rows_dealt(total: int, step: int, process: int, *, size: int, accumulation: int, processes: int) -> int:
    """How many rows a process has in an optimiser step: the first ones that its loader yields, and after them come repeats.

    accelerate's `BatchSamplerShard` deals rows to the processes in turn, a micro-batch at a time. What the last micro-batches of an
    epoch lack it takes from the epoch's start.

    Args:
        total: rows of the data.
        step: the step's number since the start of training, from 0.
        size: rows of a micro-batch.
        accumulation: micro-batches of a process in a whole step.
    """
    whole = size * accumulation * processes
    steps_per_epoch = -(-total // whole)
    left = total - step % steps_per_epoch * whole
    return sum(min(max(left - start, 0), size) for start in range(process * size, whole, processes * size))


def split_by_length(lengths: Sequence[int], parts: int) -> list[list[int]]:
    """Split indices into `parts` parts of similar lengths, such that the largest part is as small as possible.

    A part's size is its number of rows times its longest row: the computation with shorter rows padded. No part is empty.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))

    def filled(most: int) -> list[list[int]]:
        """As few parts of at most that size as possible: longest rows first, each part as full as possible."""
        found: list[list[int]] = []
        for i in order:
            if found and lengths[found[-1][0]] * (len(found[-1]) + 1) <= most:
                found[-1].append(i)
            else:
                found.append([i])
        return found

    low, high = max(lengths, default=0), sum(lengths) + max(lengths, default=0) * len(lengths)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if len(filled(middle)) <= parts else (middle + 1, high)
    found = filled(low)
    while len(found) < min(parts, len(order)):  # fewer parts suffice; halve the largest
        largest = max(range(len(found)), key=lambda n: (len(found[n]) > 1, lengths[found[n][0]] * len(found[n])))
        part = found[largest]
        found[largest : largest + 1] = [part[: len(part) // 2], part[len(part) // 2 :]]
    return found


def _train(
    model: Any,
    tokenizer: Any,
    loss_of_batch: LossOfBatch,
    weight_of_batch: WeightOfBatch,
    collator: Collator,
    examples: Sequence[Example],
    job: TrainingJob,
    mean_of_step: MeanOfStep | None = None,
    teacher: Any = None,
    trainer_class: type[GroupedTrainer] = GroupedTrainer,
) -> Trained:
    runtime = job.runtime
    if runtime.max_tokens_per_batch is not None:  # finding the longest example reads all of them
        runtime = within_tokens(runtime, max(map(collator.row_tokens, examples), default=1))
    trainer = trainer_class(
        loss_of_batch,
        weight_of_batch,
        mean_of_step,
        model=model,
        args=training_arguments(job.settings, runtime, job.folder, job.name, job.seed),
        train_dataset=Examples(examples),
        collator=collator,
        teacher=teacher,
        processing_class=tokenizer,
    )
    return fit(trainer, job)
