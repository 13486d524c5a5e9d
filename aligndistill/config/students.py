"""The schema of reward models and students."""

from typing import Literal

from pydantic import Field, model_validator

from aligndistill.config.models import LocalModel, Lora
from aligndistill.config.objectives import Objective, Ppo
from aligndistill.config.training import Training

# -------------------------------------------------------------------------------------------------------- reward model


class RewardTraining(Training):
    """A reward model trained with the Bradley-Terry loss on the mean over each prompt's strictly ordered pairs.

    Attributes:
        model: the backbone; the start by default.
        labels: `hard` trains on the order, `soft` on the teacher's probability.
        margin: subtract the (logit-scale) score difference times this from the reward difference, as Llama 2 does.
        centering: weight of the squared sum of a pair's two rewards, as in TRL, which keeps rewards near zero.
    """

    model: LocalModel | None = None
    lora: Lora | None = None
    learning_rate: float = Field(default=1e-5, gt=0)
    labels: Literal["hard", "soft"] = "hard"
    margin: float = Field(default=0.0, ge=0)
    centering: float = Field(default=0.01, ge=0)


# ------------------------------------------------------------------------------------------------------------ students


class Student(Training):
    """A student trained on the rankings or on rewards. `learning_rate` defaults to that of the objective's paper."""

    objective: Objective

    @model_validator(mode="after")
    def _published_learning_rate(self) -> "Student":
        if "learning_rate" not in self.model_fields_set:  # a before-validator would lose the strictness of JSON
            object.__setattr__(self, "learning_rate", self.objective.default_learning_rate)
        return self

    @model_validator(mode="after")
    def _whole_updates(self) -> "Student":
        if isinstance(self.objective, Ppo) and self.max_steps > 0 and self.max_steps % self.objective.steps_per_update:
            raise ValueError(
                f"'max_steps' counts optimiser steps: make it a multiple of {self.objective.steps_per_update}, "
                "the steps of one update (ppo_epochs * minibatches)"
            )
        return self

    def sampled_prompts(self, train_prompts: int) -> int:
        """How many prompts an on-policy student samples answers to, counting repeats."""
        if self.max_steps <= 0:
            return round(train_prompts * self.num_train_epochs)
        passes = self.objective.ppo_epochs if isinstance(self.objective, Ppo) else 1
        return self.max_steps // passes * self.batch_size
