"""All rollouts of an update as tensors, with rewards and advantages: what the optimiser steps of that update learn from.

Every process holds the whole of it, so that whitening and means are over the global batch however it is split.

Shapes: P prompts, K answers each, R tokens per answer, B prompts of a micro-batch, N = P * K.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aligndistill.config.objectives import Ppo
from aligndistill.models.groups import TokenGroup, collate
from aligndistill.objectives.advantages import explained_variance, generalised_advantages, token_rewards, whitened
from aligndistill.objectives.kl import k1, k3
from aligndistill.training.offline.examples import BATCH_FIELDS, MicroBatch
from aligndistill.training.on_policy.rollouts import Rollout


@dataclass(frozen=True)
class RunningMoments:
    """Count, mean and sum of squared deviations of all scores so far (Welford)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def with_scores(self, scores: Sequence[float]) -> "RunningMoments":
        """The same after some more scores."""
        moments = self
        for score in scores:
            count = moments.count + 1
            mean = moments.mean + (score - moments.mean) / count
            moments = RunningMoments(count, mean, moments.squares + (score - moments.mean) * (score - mean))
        return moments

    def normalised(self, score: float) -> float:
        """Distance from the mean in standard deviations."""
        deviation = math.sqrt(self.squares / self.count) if self.count else 0.0
        return (score - self.mean) / (deviation if deviation > 0 else 1.0)


@dataclass(frozen=True)
class Experience:
    """Rollouts and what was made of them.

    Attributes:
        counted_PKR: tokens to learn from: those of answers that have a score.
        figures: what to log of this update.
    """

    groups: list[TokenGroup]
    logprobs_PKR: Tensor
    values_PKR: Tensor
    advantages_PKR: Tensor
    returns_PKR: Tensor
    counted_PKR: Tensor
    metrics: dict[str, float]

    def micro_batch(self, prompts: Sequence[int], pad_id: int, share: bool) -> MicroBatch:
        """Some of the prompts, as a training step takes them."""
        groups = [self.groups[p] for p in prompts]
        batch = collate(groups, pad_id, share)
        width = batch.tokens_BKR.shape[2]
        tensors: MicroBatch = {name: getattr(batch, name) for name in BATCH_FIELDS}
        tensors["share"] = share
        for name in ("logprobs", "values", "advantages", "returns", "counted"):
            tensors[f"{name}_BKR"] = getattr(self, f"{name}_PKR")[list(prompts)][:, :, :width]
        return tensors


def experience_of(rollouts: Sequence[Rollout], settings: Ppo, kl_coefficient: float, moments: RunningMoments) -> Experience:
    """Rewards, advantages and figures of an update's rollouts.

    Args:
        moments: of all scores, these included.
    """
    lengths_N = torch.tensor([len(response) for rollout in rollouts for response in rollout.responses])
    positions_R = torch.arange(int(lengths_N.max()))
    mask_NR = positions_R < lengths_N.unsqueeze(1)
    policy_NR, reference_NR, values_NR = (
        _padded([row for rollout in rollouts for row in getattr(rollout, name)], mask_NR)
        for name in ("logprobs", "reference", "values")
    )
    raw = [score for rollout in rollouts for score in rollout.scores]
    scored_N = torch.tensor([score is not None for score in raw])
    finished_N = torch.tensor([finish == "stop" for rollout in rollouts for finish in rollout.finishes])
    shaped_N = torch.tensor([0.0 if score is None else _shaped(score, settings, moments) for score in raw])
    shaped_N = shaped_N - settings.missing_eos_penalty * (~finished_N).float()
    counted_NR = mask_NR & scored_N.unsqueeze(1)

    rewards_NR = token_rewards(policy_NR, reference_NR, shaped_N, counted_NR, kl_coefficient)
    advantages = generalised_advantages(rewards_NR, values_NR, counted_NR, settings.gamma, settings.gae_lambda)
    advantages_NR = advantages.advantages_NR
    if settings.whiten_advantages:
        advantages_NR = whitened(advantages_NR, counted_NR)

    known = torch.tensor([score for score in raw if score is not None])
    kl_k1_N, kl_k3_N = (torch.where(mask_NR, kl(policy_NR, reference_NR), 0.0).sum(-1) for kl in (k1, k3))
    metrics = {
        "score": float(known.mean()),
        "score_std": float(known.std(unbiased=False)),
        "reward": float((rewards_NR.sum(-1)[scored_N]).mean()),
        "kl_k1_nats": float(kl_k1_N.mean()),
        "kl_k3_nats": float(kl_k3_N.mean()),
        "kl_coefficient": kl_coefficient,
        "explained_variance": explained_variance(values_NR, advantages.returns_NR, counted_NR),
        "eos_rate": float(finished_N.float().mean()),
        "length_tokens": float(lengths_N.float().mean()),
        "unscored": float((~scored_N).float().mean()),
    }
    shape = (len(rollouts), len(rollouts[0].responses), -1)
    return Experience(
        groups=[TokenGroup(rollout.prompt.ids, rollout.responses) for rollout in rollouts],
        logprobs_PKR=policy_NR.reshape(shape),
        values_PKR=values_NR.reshape(shape),
        advantages_PKR=advantages_NR.reshape(shape),
        returns_PKR=advantages.returns_NR.reshape(shape),
        counted_PKR=counted_NR.reshape(shape),
        metrics=metrics,
    )


def _shaped(score: float, settings: Ppo, moments: RunningMoments) -> float:
    if settings.normalise_rewards:
        score = moments.normalised(score)
    if settings.reward_clip is not None:
        score = min(max(score, -settings.reward_clip), settings.reward_clip)
    return score


def _padded(rows: Sequence[Sequence[float]], mask_NR: Tensor) -> Tensor:
    flat = torch.tensor([value for row in rows for value in row])
    return torch.zeros(mask_NR.shape).masked_scatter(mask_NR, flat)
