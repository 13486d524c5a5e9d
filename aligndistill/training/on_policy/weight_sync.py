"""Rollouts that a server samples: it is handed the policy's weights before each update, and held to answer with them."""

import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from aligndistill.errors import TrainingError
from aligndistill.models.sampling import Sampled
from aligndistill.training.on_policy.rollouts import Sampler

LARGEST_GAP_NATS = 0.5
"""Half precision, another kernel and a merged adapter account for some hundredths."""

NOTICED_GAP_NATS = 0.02
"""Below it nobody can tell whose weights they are."""


class PolicyServer(Protocol):
    """Something elsewhere that samples for the policy."""

    def load(self, folder: Path) -> None:
        """Take the weights in a Hugging Face folder, and forget what was kept of those before."""
        ...

    @property
    def sample(self) -> Sampler:
        """But that its log-probs are those at temperature 1."""
        ...


@dataclass(frozen=True)
class ServedRollouts:
    """A server for a policy.

    Attributes:
        weights: an absolute folder of the training's own, which the server sees under the same path.
    """

    server: PolicyServer
    weights: Path

    def send_weights(self, policy: Any, update: int) -> None:
        """Let the server take a policy's weights; for the first process alone, where the weights are whole."""
        # A path that it has read before might be taken for the weights that it has: after a resumption, too.
        folder = self.weights / f"update-{update}-{uuid.uuid4().hex[:8]}"
        folder.mkdir(parents=True)
        save_merged(policy, folder)
        self.server.load(folder)
        for other in self.weights.iterdir():
            if other != folder:
                shutil.rmtree(other)

    def clear(self) -> None:
        """Take away what was handed over."""
        shutil.rmtree(self.weights, ignore_errors=True)


def save_merged(policy: Any, folder: Path) -> None:
    """Write a policy as an ordinary Hugging Face folder of safetensors; adapters are added to copies, the base stays as it is."""
    if hasattr(policy, "peft_config"):
        policy.get_base_model().save_pretrained(folder, state_dict=merged_weights(policy))
    else:
        policy.save_pretrained(folder)


@torch.no_grad()
def merged_weights(adapted: Any) -> dict[str, Tensor]:
    """The weights that a model under low-rank adapters would have without them, by the names that they have without them."""
    from peft.tuners.lora import LoraLayer  # only here: importing peft takes a second

    base = adapted.get_base_model()
    layers = {name: module for name, module in base.named_modules() if isinstance(module, LoraLayer)}
    merged = {}
    for name, value in base.state_dict().items():
        owner, _, of_base_layer = name.partition(".base_layer.")
        if of_base_layer == "weight":
            (adapter,) = layers[owner].active_adapters
            # In float32, whatever mixed precision is on around here: half precision would round small changes away.
            with torch.autocast(value.device.type, enabled=False):
                value = (value.float() + layers[owner].get_delta_weight(adapter).float()).cpu()
        if not any(part.startswith("lora_") for part in name.split(".")):
            merged[f"{owner}.{of_base_layer}" if of_base_layer else name] = value
    return merged


@dataclass(frozen=True)
class LogprobGap:
    """How far a server's log-probs at temperature 1 are from ours, over the same tokens.

    Attributes:
        policy_nats: mean distance from those of the policy that it was given.
        start_nats: mean distance from those of the reference, which the policy began as.
    """

    policy_nats: float
    start_nats: float


def gap_sums(
    drawn: Sequence[Sequence[Sampled]], policy: Sequence[Sequence[Sequence[float]]], reference: Sequence[Sequence[Sequence[float]]]
) -> list[float]:
    """[sum of distances from the policy, from the reference, tokens] of one process, to be added up over all."""
    sums = [0.0, 0.0, 0.0]
    for samples, of_policy, of_reference in zip(drawn, policy, reference, strict=True):
        for one, ours, starts in zip(samples, of_policy, of_reference, strict=True):
            sums[0] += sum(abs(a - b) for a, b in zip(one.logprobs, ours, strict=True))
            sums[1] += sum(abs(a - b) for a, b in zip(one.logprobs, starts, strict=True))
            sums[2] += len(one.logprobs)
    return sums


def require_policys_weights(gap: LogprobGap) -> None:
    """Refuse answers that another model gave.

    Raises:
        TrainingError: the log-probs are far from the policy's, or those of the start.
    """
    if gap.policy_nats > NOTICED_GAP_NATS and gap.policy_nats > 2 * gap.start_nats:
        what = (
            f"and {gap.start_nats:.2f} from the start's. It still runs what it was started with, or rounds small changes away "
            "(--dtype float32 does not)."
        )
    elif not gap.policy_nats <= LARGEST_GAP_NATS:
        what = "where rounding makes some hundredths."
    else:
        return
    raise TrainingError(
        f"the rollout server does not run this policy's weights: its log-probs are {gap.policy_nats:.2f} nats per token from the "
        f"policy's, {what} Check that base_url and name are those of a server for this start's architecture, that nobody else "
        "loads weights into it, that it is not quantized, and that its --logprobs-mode is raw_logprobs. The same command goes on "
        "from the last checkpoint."
    )
