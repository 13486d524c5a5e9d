"""The schema of what is trained on preferences: reward models and students."""

from typing import Literal

from pydantic import Field, model_validator

from aligndistill.config.models import LocalModel, Lora
from aligndistill.config.objectives import Objective, Ppo
from aligndistill.config.training import Training

# -------------------------------------------------------------------------------------------------------- reward model


class RewardTraining(Training):
    """Bradley-Terry on the rankings, over all strictly ordered pairs of a prompt, each weighted 1 / their number.

    Attributes:
        model: the trunk; the start by default.
        labels: `hard` learns the order, `soft` the teacher's probability.
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
    """One way of learning from the rankings, or from rewards. Without `learning_rate`, the one its paper used."""

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
                f"'max_steps' counts optimiser steps, and an update has {self.objective.steps_per_update} "
                "(ppo_epochs * minibatches): make it a multiple of that"
            )
        return self

    def sampled_prompts(self, train_prompts: int) -> int:
        """How many prompts an on-policy student samples answers to, repetitions counted."""
        if self.max_steps <= 0:
            return round(train_prompts * self.num_train_epochs)
        passes = self.objective.ppo_epochs if isinstance(self.objective, Ppo) else 1
        return self.max_steps // passes * self.batch_size
