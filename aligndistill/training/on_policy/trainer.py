"""PPO on transformers' Trainer: rollouts are sampled when the first micro-batch of an update is requested.

Optimiser, schedule, clipping, accumulation, DeepSpeed and checkpoints therefore work as in offline training. The samples of an
update and their order depend on the seed and the update's number alone; besides the trainer's own state a checkpoint holds only the
KL coefficient and the moments of the scores.

An update: sample, score, compute advantages, then `ppo_epochs` passes of `minibatches` optimiser steps each.
"""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer

from aligndistill.config.objectives import Ppo
from aligndistill.models.actor_critic import outputs
from aligndistill.models.load import LanguageModel
from aligndistill.objectives.kl import adapted_coefficient
from aligndistill.objectives.ppo import Learned, UpdateBatch, ppo
from aligndistill.processes.progress import say
from aligndistill.training import frozen
from aligndistill.training.offline.examples import MicroBatch, grouped_batch
from aligndistill.training.offline.trainer import split_by_length
from aligndistill.training.on_policy.collecting import Collector, PpoWork
from aligndistill.training.on_policy.experience import Experience, RunningMoments, experience_of
from aligndistill.training.on_policy.health import new_warnings
from aligndistill.training.on_policy.invariants import require_masks_of_lengths, require_ratio_of_one, require_valid_metrics
from aligndistill.training.on_policy.kl_budget import BudgetSpent
from aligndistill.training.on_policy.prompt_order import prompts_in_turn, shuffled
from aligndistill.training.on_policy.rollouts import RolloutSettings, gathered_weights
from aligndistill.training.policy_module import PolicyModuleTrainer

STATE_JSON = "ppo.json"


@dataclass(frozen=True)
class PpoState:
    """The state in a checkpoint besides the trainer's own.

    Attributes:
        kl_coefficient: for the next update.
        moments: of all scores so far.
        keeps_logprobs: whether the log-probs of sampling are used directly; None until that was measured.
    """

    kl_coefficient: float
    moments: RunningMoments
    keeps_logprobs: bool | None = None


class PpoTrainer(PolicyModuleTrainer, Trainer):  # type: ignore[misc]
    """Trains an `ActorCritic`.

    Args:
        policy: how the policy reads conversations; its weights are those inside the `ActorCritic`.
        sampling: how the policy samples; its batch size counts prompts.
    """

    def __init__(self, settings: Ppo, policy: LanguageModel, work: PpoWork, sampling: RolloutSettings, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.loss_is_scaled_for_ga = True
        self.state_of_ppo = PpoState(settings.kl_coefficient, RunningMoments())
        self.stops_every = settings.steps_per_update
        self._settings = settings
        self._policy = policy
        self._work = work
        self._collector = Collector(settings, self.model, policy, work, sampling, self.accelerator, partial(gathered_weights, self))
        self._figures: dict[str, float] = {}
        self._sums: dict[str, Tensor] = {}
        self._largest: dict[str, Tensor] = {}
        self._learning_since = 0.0
        self._shard_frozen()

    # ----------------------------------------------------------------------------------------------------- the data

    @property
    def prompts_per_update(self) -> int:
        """Prompts per update, over all processes."""
        share = self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps
        return int(share * self.accelerator.num_processes * self._settings.minibatches)

    @property
    def updates(self) -> int:
        """The number of updates in the whole training."""
        return int(self.args.max_steps // self._settings.steps_per_update)

    def get_train_dataloader(self) -> Any:
        """All micro-batches of this process, as one epoch."""
        return _MicroBatches(self)

    def micro_batches(self) -> Iterator[MicroBatch]:
        """From the update after the last finished step to the last update."""
        settings = self._settings
        processes, process = self.accelerator.num_processes, self.accelerator.process_index
        for update in range(self.state.global_step // settings.steps_per_update, self.updates):
            experience = self._experience(update)
            for epoch in range(settings.ppo_epochs):
                order = shuffled(self.prompts_per_update, self.args.seed, "order", update, epoch)
                for minibatch in _split(order, settings.minibatches):
                    mine = minibatch[process::processes]
                    lengths = [experience.groups[p].tokens(self._policy.shares_prompt) for p in mine]
                    for indices in split_by_length(lengths, self.args.gradient_accumulation_steps):
                        chosen = [mine[i] for i in indices]
                        groups = [experience.groups[p] for p in chosen]
                        tensors = experience.micro_batch(chosen, self._policy.conversation.pad_id, self._policy.shares(groups))
                        require_masks_of_lengths(tensors["tokens_BKR"], groups)
                        is_first = self.state.global_step == update * settings.steps_per_update
                        yield {**tensors, "before_first_step": is_first}

    def prompts_of(self, update: int) -> list[int]:
        """The indices of an update's prompts: all prompts repeatedly, each time in a new order."""
        size = self.prompts_per_update
        return prompts_in_turn(len(self._work.prompts), self.args.seed, update * size, (update + 1) * size)

    # ----------------------------------------------------------------------------------------------------- rollouts

    def _experience(self, update: int) -> Experience:
        """Collect an update's rollouts, and compute the state for a checkpoint after the update."""
        settings, state = self._settings, self.state_of_ppo
        self.model.eval()
        collected = self._collector.collect(update, self.prompts_of(update), state.keeps_logprobs)
        rollouts = collected.rollouts
        moments = state.moments.with_scores([score for rollout in rollouts for score in rollout.scores if score is not None])
        experience = experience_of(rollouts, settings, state.kl_coefficient, moments)
        require_valid_metrics(experience.metrics)
        if self.accelerator.is_main_process:
            self._work.keep_samples(update, rollouts)
        kl_nats = experience.metrics["kl_k1_nats"]
        if settings.kl_budget is not None and kl_nats > settings.kl_budget:
            raise BudgetSpent(update, kl_nats)
        coefficient = state.kl_coefficient
        if settings.kl_target is not None:
            samples = len(rollouts) * settings.samples_per_prompt
            coefficient = adapted_coefficient(coefficient, kl_nats, settings.kl_target, settings.kl_horizon, samples)
        self.state_of_ppo = PpoState(coefficient, moments, collected.keeps_logprobs)
        self._figures = {"update": update + 1, **experience.metrics, **collected.metrics}
        self._learning_since = time.monotonic()
        return experience

    def require_budget(self) -> None:
        """Check the policy after the last update against `kl_budget`, with additional samples; all earlier policies were measured.

        Raises:
            BudgetSpent: its KL is above the budget.
        """
        budget = self._settings.kl_budget
        if budget is None:
            return
        self.model.eval()
        kl_nats = self._collector.kl_nats(self.updates, self.prompts_of(self.updates), bool(self.state_of_ppo.keeps_logprobs))
        if kl_nats > budget:
            raise BudgetSpent(self.updates, kl_nats)

    def _shard_frozen(self) -> None:
        config = frozen.zero3_config(self.accelerator)
        if config is not None:
            frozen.shard_model([*self._work.reference_models, *self._work.frozen], config)

    # --------------------------------------------------------------------------------------------------- the training

    def compute_loss(self, model: Any, inputs: MicroBatch, return_outputs: bool = False, num_items_in_batch: Any = None) -> Tensor:
        """This micro-batch's share of the step's loss, which is a mean over the step's tokens."""
        assert not return_outputs and num_items_in_batch is not None
        settings = self._settings
        found = outputs(model, grouped_batch(inputs), inputs["share"], settings.temperature)
        recorded, counted = inputs["logprobs_BKR"], inputs["counted_BKR"]
        if inputs["before_first_step"]:
            dtype = torch.get_autocast_dtype(counted.device.type) if self.args.bf16 else next(self.model.parameters()).dtype
            require_ratio_of_one(found.logprobs_BKR, recorded, counted, dtype)
        loss = ppo(
            Learned(found.logprobs_BKR, found.entropy_BKR, found.values_BKR),
            UpdateBatch(recorded, inputs["values_BKR"], inputs["advantages_BKR"], inputs["returns_BKR"], counted),
            clip_range=settings.clip_range,
            value_clip_range=settings.value_clip_range,
            value_coefficient=settings.value_coefficient,
            entropy_coefficient=settings.entropy_coefficient,
        )
        tokens = counted.sum()
        self._count(loss.metrics, tokens)
        # Gradients are averaged over processes afterwards, so each share is multiplied by their number.
        share: Tensor = loss.value * (tokens * self.accelerator.num_processes / num_items_in_batch)
        return share

    def _get_num_items_in_batch(self, batch_samples: list[MicroBatch], device: torch.device) -> Tensor:
        """The tokens of the optimiser step, over all micro-batches and processes."""
        tokens = sum((tensors["counted_BKR"].sum() for tensors in batch_samples), torch.zeros((), dtype=torch.long)).to(device)
        total: Tensor = self.accelerator.gather(tokens).sum()
        return total.clamp(min=1)

    def _count(self, metrics: dict[str, Tensor], tokens: Tensor) -> None:
        for name, value in metrics.items():
            if name.endswith("_max"):
                self._largest[name] = torch.maximum(self._largest.get(name, value), value)
            else:
                self._sums[name] = self._sums.get(name, torch.zeros(2, device=value.device)) + torch.stack([value * tokens, tokens])

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the metrics of an update at its end."""
        if "loss" in logs:
            self._figures["update_seconds"] = time.monotonic() - self._learning_since
            logs.update(self._figures)
            for name, seen in self._sums.items():
                total, count = self.accelerator.reduce(seen, reduction="sum").tolist()
                logs[name] = total / max(count, 1)
            for name, largest in self._largest.items():
                logs[name] = float(self.accelerator.gather(largest).max())
            self._sums, self._largest = {}, {}
            self.state.epoch = logs["update"] * self.prompts_per_update / len(self._work.prompts)
        super().log(logs, start_time)
        if "update" in logs and self.accelerator.is_main_process:
            for warning in new_warnings(self.state.log_history, self._settings):
                say(f"  update {logs['update']}: {warning.text}")

    def create_optimizer(self, model: Any = None) -> Any:
        """The default optimiser, with a separate learning rate for the critic."""
        if self.optimizer is None:
            optimizer_class, arguments = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            rates = (self.args.learning_rate, self._settings.critic_learning_rate or self.args.learning_rate)
            decaying = set(self.get_decay_parameter_names(self.model))
            groups: dict[tuple[float, float], list[Any]] = {}
            for name, parameter in self.model.named_parameters():
                if parameter.requires_grad:
                    rate = rates[name.startswith("critic.")]
                    decay = self.args.weight_decay if name in decaying else 0.0
                    groups.setdefault((rate, decay), []).append(parameter)
            described = [{"params": members, "lr": rate, "weight_decay": decay} for (rate, decay), members in groups.items()]
            self.optimizer: Any = optimizer_class(described, **arguments)
        return self.optimizer

    # --------------------------------------------------------------------------------------------------- checkpoints

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """Write a checkpoint with the trained weights and the state of PPO."""
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            assert output_dir is not None
            Path(output_dir, STATE_JSON).write_text(json.dumps(asdict(self.state_of_ppo)))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            found = json.loads((Path(checkpoint) / STATE_JSON).read_text())
            self.state_of_ppo = PpoState(**{**found, "moments": RunningMoments(**found["moments"])})


class _MicroBatches:
    """The data loader of the trainer."""

    def __init__(self, trainer: PpoTrainer) -> None:
        self._trainer = trainer

    def __len__(self) -> int:
        trainer = self._trainer
        return int(trainer.updates * trainer._settings.steps_per_update * trainer.args.gradient_accumulation_steps)

    def __iter__(self) -> Iterator[MicroBatch]:
        return self._trainer.micro_batches()


def _split(items: Sequence[int], parts: int) -> list[list[int]]:
    size, rest = divmod(len(items), parts)
    assert not rest, "a batch is a multiple of its parts"
    return [list(items[start : start + size]) for start in range(0, len(items), size)]
