"""A policy and its critic as one module.

The critic is a separate model, or a linear head on the policy's backbone. The value at a token is that of the state before it, read
where the token is predicted.

Shapes: B prompts, K responses, R tokens per response, S scored tokens.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aligndistill.models.groups import GroupedBatch
from aligndistill.models.load import ModelPointer
from aligndistill.models.logprobs import at_tokens
from aligndistill.models.policy_module import PolicyModule
from aligndistill.models.reward import RewardModel, load_reward_model, new_reward_model, set_pooling


class ActorCritic(PolicyModule):
    """The policy (a causal language model after `use_grouped_forward`, plain or peft) and its critic.

    Args:
        critic: a sequence classifier with one label after `use_reward_forward`, plain or peft; None adds a value head,
            initialised to zero, to the policy's backbone.
    """

    def __init__(self, policy: Any, critic: Any | None) -> None:
        super().__init__(policy)
        self.critic = critic
        self.value_head: torch.nn.Linear | None = None
        if critic is None:
            parameter = next(policy.parameters())
            self.value_head = torch.nn.Linear(policy.config.get_text_config().hidden_size, 1, device=parameter.device)
            torch.nn.init.zeros_(self.value_head.weight)
            torch.nn.init.zeros_(self.value_head.bias)

    def forward(self, rows: dict[str, Tensor], scored: dict[str, Tensor], share: bool, temperature: float) -> tuple[Tensor, ...]:
        """logprobs_S, entropy_S, values_S of the scored tokens; see `outputs`."""
        if self.critic is None:
            head = self.value_head
            outputs: tuple[Tensor, ...] = self.policy(
                **rows, **scored, share=share, temperature=temperature, entropy=True, value_head=head
            )
            return outputs
        logprobs_S, entropy_S = self.policy(**rows, **scored, share=share, temperature=temperature, entropy=True)
        return logprobs_S, entropy_S, self.critic(**rows, ends_S=scored["predictors_S"], share=share)


@dataclass(frozen=True)
class Outputs:
    """Log-probs (nats), entropy (nats) and values (units of reward) of every response token; 0 where there is no token."""

    logprobs_BKR: Tensor
    entropy_BKR: Tensor
    values_BKR: Tensor


def outputs(model: Any, batch: GroupedBatch, share: bool, temperature: float) -> Outputs:
    """Run policy and critic in one forward pass.

    Args:
        model: an `ActorCritic`, or DDP's or DeepSpeed's wrapper of one.
    """
    found = model(rows=_rows(batch), scored=_scored(batch), share=share, temperature=temperature)
    return Outputs(*(at_tokens(values_S, batch) for values_S in found))


def token_values(model: ActorCritic, batch: GroupedBatch, share: bool) -> Tensor:
    """The value of each response token: (B, K, R), 0 where there is no token. A separate critic is run alone."""
    if model.critic is None:
        return outputs(model, batch, share, temperature=1.0).values_BKR
    values_S: Tensor = model.critic(**_rows(batch), ends_S=_scored(batch)["predictors_S"], share=share)
    return at_tokens(values_S, batch)


def critic_from_reward_model(pointer: ModelPointer) -> RewardModel:
    """A critic initialised from the reward model: its score is the initial value, read at each token."""
    critic = load_reward_model(pointer)
    set_pooling(critic.model, "last")
    return critic


def critic_from_backbone(pointer: ModelPointer, seed: int) -> RewardModel:
    """A critic with a language model's backbone and a zero head (as initialised by Ziegler et al. 2019)."""
    critic = new_reward_model(pointer, seed)
    torch.nn.init.zeros_(critic.model.score.weight)
    return critic


def _rows(batch: GroupedBatch) -> dict[str, Tensor]:
    return {"input_ids": batch.input_ids_NT, "position_ids": batch.positions_NT, "segments_NT": batch.segments_NT}


def _scored(batch: GroupedBatch) -> dict[str, Tensor]:
    return {"predictors_S": batch.predictors_S, "targets_S": batch.targets_S}
