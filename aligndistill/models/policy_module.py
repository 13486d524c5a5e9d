"""A policy and what is trained beside it as one module, so that one trainer, one optimiser and one DeepSpeed engine train both."""

from typing import Any

import torch


class PolicyModule(torch.nn.Module):
    """The base of such modules.

    Args:
        policy: a causal language model after `use_grouped_forward`, plain or peft. It alone is saved as the result.
    """

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.policy = policy

    @property
    def config(self) -> Any:
        """The policy's config, which the trainer reads."""
        return self.policy.config

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether the policy recomputes its activations. (Read by code that gathers weights, which does not change it.)"""
        return False

    def activation_checkpointing_enable(self, **kwargs: Any) -> None:
        """Recompute activations in the backward pass, in every model of the module."""
        for model in self.children():
            enable: Any = getattr(model, "activation_checkpointing_enable", None)
            if enable is not None:
                enable(**kwargs)
