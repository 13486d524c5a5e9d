"""Rollouts from a server: it gets the policy's weights before each update, and its log-probs are checked against the policy."""

import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from aligndistill.errors import TrainingError
from aligndistill.models.folder import tied_weight_on_a_server
from aligndistill.models.sampling import Sampled
from aligndistill.training.adapters import adapts_tied_weights
from aligndistill.training.on_policy.rollouts import Sampler

LARGEST_GAP_NATS = 0.5
"""The largest distance allowed, nats per token. Half precision, another kernel and a merged adapter cause some hundredths."""

NOTICED_GAP_NATS = 0.02
"""Below this distance, nats per token, the weights cannot be distinguished."""


class PolicyServer(Protocol):
    """The interface of a server that samples for the policy."""

    def load(self, folder: Path) -> None:
        """Load the weights in a Hugging Face folder, and reset the prefix cache."""
        ...

    @property
    def sample(self) -> Sampler:
        """See `models.sampling.sample`; but log-probs are those at temperature 1."""
        ...


@dataclass(frozen=True)
class ServedRollouts:
    """A server for a policy.

    Attributes:
        weights: an absolute folder for this training alone, which the server can read at the same path.
    """

    server: PolicyServer
    weights: Path

    def send_weights(self, policy: Any, update: int) -> None:
        """Let the server load a policy's weights. Called by the main process alone, with gathered weights."""
        # Each update has a new path, also after a resume: the server may not reload a path that it has loaded before.
        folder = self.weights / f"update-{update}-{uuid.uuid4().hex[:8]}"
        folder.mkdir(parents=True)
        save_merged(policy, folder)
        self.server.load(folder)
        for other in self.weights.iterdir():
            if other != folder:
                shutil.rmtree(other)

    def clear(self) -> None:
        """Delete the weights that were sent."""
        shutil.rmtree(self.weights, ignore_errors=True)


def require_servable(policy: Any) -> None:
    """Refuse adapters that cannot be merged into the weights of a running server.

    Raises:
        ConfigError: they are on a head or embeddings that share one weight; merged, these are two, and the server has one.
    """
    if hasattr(policy, "peft_config") and adapts_tied_weights(policy.get_base_model()):
        raise tied_weight_on_a_server()


def save_merged(policy: Any, folder: Path) -> None:
    """Write a policy as a Hugging Face folder of safetensors; adapters are merged into copies, the base model does not change."""
    if hasattr(policy, "peft_config"):
        policy.get_base_model().save_pretrained(folder, state_dict=merged_weights(policy))
    else:
        policy.save_pretrained(folder)


@torch.no_grad()
def merged_weights(adapted: Any) -> dict[str, Tensor]:
    """The merged weights of a model with low-rank adapters, by the names of the model without adapters."""
    from peft.tuners.lora import LoraLayer  # only here: importing peft takes a second

    base = adapted.get_base_model()
    layers = {name: module for name, module in base.named_modules() if isinstance(module, LoraLayer)}
    merged = {}
    for name, value in base.state_dict().items():
        owner, _, of_base_layer = name.partition(".base_layer.")
        if of_base_layer == "weight":
            (adapter,) = layers[owner].active_adapters
            # In float32, even under autocast: half precision would round small changes away.
            with torch.autocast(value.device.type, enabled=False):
                value = (value.float() + layers[owner].get_delta_weight(adapter).float()).cpu()
        if not any(part.startswith("lora_") for part in name.split(".")):
            merged[f"{owner}.{of_base_layer}" if of_base_layer else name] = value
    return merged


@dataclass(frozen=True)
class LogprobGap:
    """How far a server's log-probs at temperature 1 are from those computed here, over the same tokens.

    Attributes:
        policy_nats: mean distance from the policy's log-probs.
        start_nats: mean distance from the log-probs of the reference, the start.
    """

    policy_nats: float
    start_nats: float


def gap_sums(
    drawn: Sequence[Sequence[Sampled]], policy: Sequence[Sequence[Sequence[float]]], reference: Sequence[Sequence[Sequence[float]]]
) -> list[float]:
    """[sum of distances from the policy, from the reference, number of tokens] of one process, to be summed over processes."""
    sums = [0.0, 0.0, 0.0]
    for samples, of_policy, of_reference in zip(drawn, policy, reference, strict=True):
        for one, ours, starts in zip(samples, of_policy, of_reference, strict=True):
            sums[0] += sum(abs(a - b) for a, b in zip(one.logprobs, ours, strict=True))
            sums[1] += sum(abs(a - b) for a, b in zip(one.logprobs, starts, strict=True))
            sums[2] += len(one.logprobs)
    return sums


def require_policys_weights(gap: LogprobGap) -> None:
    """Refuse answers of another model.

    Raises:
        TrainingError: the log-probs are far from the policy's, or are those of the start.
    """
    if gap.policy_nats > NOTICED_GAP_NATS and gap.policy_nats > 2 * gap.start_nats:
        what = (
            f"and {gap.start_nats:.2f} from the start's. It still runs the weights it was started with, or rounds small "
            "changes away (start it with --dtype float32)."
        )
    elif not gap.policy_nats <= LARGEST_GAP_NATS:
        what = "where rounding causes some hundredths."
    else:
        return
    raise TrainingError(
        f"the rollout server does not run this policy's weights: its log-probs are {gap.policy_nats:.2f} nats per token from the "
        f"policy's, {what} Check that base_url and name are those of a server for this start's architecture, that no other "
        "process loads weights into it, that it is not quantized, and that its --logprobs-mode is raw_logprobs. Run the same "
        "command again to resume from the last checkpoint."
    )
