"""The schema of training hyperparameters and of supervised fine-tuning."""

from pydantic import Field

from aligndistill.config.data import Source
from aligndistill.config.section import Section

# ------------------------------------------------------------------------------------------------------------ training


class Training(Section):
    """Training hyperparameters.

    Attributes:
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


class Sft(Training):
    """Supervised fine-tuning on demonstrations (rows with a prompt and a completion, or `messages`)."""

    demonstrations: Source
