"""The schema of training hyperparameters and of supervised fine-tuning."""

from typing import Self

from pydantic import Field

from aligndistill.config.data import Source
from aligndistill.config.section import Section, with_defaults

ADAPTER_RATE_FACTOR = 10
"""Published learning rates for adapters are ten times those for all weights: TRL's `lora_without_regret` has 2e-4 for supervised
fine-tuning, 5e-6 for DPO and 1e-5 for GRPO; LLaMA-Factory's examples have 1e-4 for reward models. PPO and on-policy distillation
have a rate of their own. For the other objectives there is no published table: the same factor is an extrapolation.
"""

# ------------------------------------------------------------------------------------------------------------ training


class Training(Section):
    """Training hyperparameters.

    Attributes:
        learning_rate: where adapters are trained, the default is `adapter_learning_rate`.
        batch_size: prompts per optimiser step, over all processes; `runtime` sets how it is split.
        max_steps: stop after this many optimiser steps; -1 trains for `num_train_epochs`.
        max_prompt_tokens: longer prompts are dropped and counted, because a truncated prompt is a different prompt.
        max_response_tokens: longer responses are truncated, and then have no end token.
    """

    learning_rate: float = Field(default=2e-5, gt=0)
    batch_size: int = Field(default=32, gt=0)
    num_train_epochs: float = Field(default=1.0, gt=0)
    max_steps: int = -1
    warmup_ratio: float = Field(default=0.03, ge=0, lt=1)
    lr_scheduler_type: str = "cosine"
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    max_prompt_tokens: int = Field(default=512, gt=0)
    max_response_tokens: int = Field(default=512, gt=0)

    @property
    def full_learning_rate(self) -> float:
        """The default learning rate for all weights."""
        rate: float = type(self).model_fields["learning_rate"].default
        return rate

    @property
    def adapter_learning_rate(self) -> float:
        """The default learning rate for adapters. Rounded, so that it equals the number that a user would write: 5e-6."""
        return float(f"{ADAPTER_RATE_FACTOR * self.full_learning_rate:.6g}")

    @property
    def has_default_rate(self) -> bool:
        """Whether the config gives no learning rate."""
        return "learning_rate" not in self.model_fields_set

    def whole_updates(self, prompts: int, minibatches: int = 1) -> int:
        """How many updates of `minibatches` batches `num_train_epochs` over this many prompts are: rounded, and at least one."""
        return max(round(prompts * self.num_train_epochs / (self.batch_size * minibatches)), 1)

    def for_adapters(self) -> Self:
        """The settings for training adapters: a default learning rate becomes that of adapters, a given one stays."""
        return with_defaults(self, {"learning_rate": self.adapter_learning_rate})


class Sft(Training):
    """Supervised fine-tuning on demonstrations (rows with a prompt and a completion, or `messages`)."""

    demonstrations: Source
