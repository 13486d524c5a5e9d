"""Collects an update's rollouts: every process samples and scores its share, and all processes get all rollouts."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import torch
from accelerate.utils import gather_object

from aligndistill.chat.local import split_answer
from aligndistill.config.objectives import Ppo
from aligndistill.models.actor_critic import ActorCritic
from aligndistill.models.groups import TokenGroup
from aligndistill.models.load import LanguageModel
from aligndistill.models.sampling import Sampled
from aligndistill.processes.ranks import from_all
from aligndistill.training import frozen
from aligndistill.training.on_policy.kl_budget import answers_kl_nats
from aligndistill.training.on_policy.rollouts import (
    CHECKED_PROMPTS,
    PerToken,
    PolicyPrompt,
    Rollout,
    RolloutSettings,
    SampledPrompt,
    ScoreSamples,
    critic_values,
    groups_of,
    logprobs_and_values,
    policy_logprobs,
    reference_of,
    sample_rollouts,
    sampling_is_training,
)
from aligndistill.training.on_policy.weight_sync import LogprobGap, ServedRollouts, gap_sums, require_policys_weights


@dataclass(frozen=True)
class PpoWork:
    """The data and reward of PPO.

    Attributes:
        reference: the frozen start; None if the policy has adapters that can be disabled.
        score: the reward source.
        win_rate: computes a policy's win rate over the start on held-out prompts, a collective call; it returns None if no verdict
            could be read. None disables this evaluation.
        keep_samples: called with every update's number and rollouts, on the main process.
        frozen: the models that `score` reads; ZeRO-3 shards them, as it does the reference.
        served: the rollout server that samples for the policy; None if the policy samples itself.
    """

    prompts: Sequence[PolicyPrompt]
    reference: LanguageModel | None
    score: ScoreSamples
    win_rate: Callable[[LanguageModel], float | None] | None
    keep_samples: Callable[[int, Sequence[Rollout]], None]
    frozen: Sequence[Any] = ()
    served: ServedRollouts | None = None

    @property
    def reference_models(self) -> list[Any]:
        """The frozen start's reference policy, if there is one."""
        return [self.reference.model] if self.reference is not None else []


@dataclass(frozen=True)
class CollectedRollouts:
    """An update's rollouts.

    Attributes:
        rollouts: of all processes, in the order of the prompts.
        keeps_logprobs: whether the log-probs of sampling are used directly.
        metrics: seconds, and measurements while sampling.
    """

    rollouts: list[Rollout]
    keeps_logprobs: bool
    metrics: dict[str, float]


@dataclass(frozen=True)
class Collector:
    """Collects rollouts of a policy with its current weights.

    Attributes:
        model: holds the policy and its critic, in evaluation mode while collecting.
        policy: how the policy reads conversations.
        sampling: how the policy samples; its batch size counts prompts.
        whole_weights: gathers sharded weights while they are read.
    """

    settings: Ppo
    model: ActorCritic
    policy: LanguageModel
    work: PpoWork
    sampling: RolloutSettings
    accelerator: Any
    gathered_weights: Callable[[], AbstractContextManager[Any]]

    def collect(self, update: int, places: Sequence[int], keeps: bool | None) -> CollectedRollouts:
        """Sample and score.

        Args:
            update: the number of the update; it selects the random streams.
            places: the indices of the update's prompts, for all processes together.
            keeps: whether the log-probs of sampling are used directly; None measures whether that is exact enough.
        """
        settings, work = self.settings, self.work
        started = time.monotonic()
        metrics: dict[str, float] = {}
        with self.gathered_weights(), self.accelerator.autocast():
            if keeps is None:
                keeps = work.served is None and self._sampling_is_training()
            if work.win_rate is not None and settings.evaluate_every and update % settings.evaluate_every == 0:
                win_rate = work.win_rate(self.policy)
                if win_rate is not None:
                    metrics["held_out_win_rate"] = win_rate
            prompts, drawn = self._draw(update, places)
            sampled = time.monotonic()
            groups = groups_of(prompts, drawn)
            logprobs, values = self._logprobs_and_values(drawn, groups, keeps)
            of_reference = self._reference_logprobs(groups, self.sampling)
            metrics |= self._require_served(drawn, groups, logprobs, of_reference)
        asked = self._as_asked(prompts, drawn)
        with frozen.gathered(work.frozen):
            scores = work.score(asked)
        rollouts = [
            Rollout(prompt, group.responses, one.texts, one.finishes, *of_prompt)
            for prompt, group, one, *of_prompt in zip(prompts, groups, asked, logprobs, of_reference, values, scores, strict=True)
        ]
        everyones = _interleaved(gather_object(rollouts), self.accelerator.num_processes)
        seconds = {"rollout_seconds": sampled - started, "scoring_seconds": time.monotonic() - sampled}
        return CollectedRollouts(everyones, keeps, {**metrics, **seconds})

    def kl_nats(self, update: int, places: Sequence[int], keeps: bool) -> float:
        """KL(policy || reference) per answer, from additional samples that are not trained on."""
        with self.gathered_weights(), self.accelerator.autocast():
            prompts, drawn = self._draw(update, places)
            groups = groups_of(prompts, drawn)
            logprobs, of_reference = self._policy_logprobs(drawn, groups, keeps), self._reference_logprobs(groups, self.sampling)
            self._require_served(drawn, groups, logprobs, of_reference)
        return fmean(gather_object(answers_kl_nats(logprobs, of_reference)))

    def _sampling_is_training(self) -> bool:
        """Whether a condition is true in every process: rounding may differ between devices, and all processes must agree."""
        return all(from_all(lambda: [sampling_is_training(self.policy, self.work.prompts, self.sampling)]))

    def _draw(self, update: int, places: Sequence[int]) -> tuple[list[PolicyPrompt], list[list[Sampled]]]:
        """This process's share of the prompts, with their answers."""
        process, processes = self.accelerator.process_index, self.accelerator.num_processes
        mine = [(place, self.work.prompts[index]) for place, index in enumerate(places)][process::processes]
        prompts = [prompt for _, prompt in mine]
        keys = [f"{update} {place} {prompt.id}" for place, prompt in mine]
        served = self.work.served
        if served is None:
            return prompts, sample_rollouts(self.policy, prompts, keys, self.sampling)
        if self.accelerator.is_main_process:
            served.send_weights(self.policy.model, update)
        self.accelerator.wait_for_everyone()
        at_once = replace(self.sampling, batch_size=len(prompts))  # the server decides how many requests run at once
        return prompts, sample_rollouts(self.policy, prompts, keys, at_once, served.server.sample)

    def _logprobs_and_values(
        self, drawn: Sequence[Sequence[Sampled]], groups: Sequence[TokenGroup], keeps: bool
    ) -> tuple[PerToken, PerToken]:
        if self.model.critic is None and not keeps:  # one pass computes both
            return logprobs_and_values(self.model, self.policy, groups, self.sampling)
        return self._policy_logprobs(drawn, groups, keeps), critic_values(self.model, self.policy, groups, self.sampling)

    def _policy_logprobs(self, drawn: Sequence[Sequence[Sampled]], groups: Sequence[TokenGroup], keeps: bool) -> PerToken:
        if keeps:
            return [[one.logprobs for one in samples] for samples in drawn]
        return policy_logprobs(self.policy, groups, self.sampling)

    def _reference_logprobs(self, groups: Sequence[TokenGroup], sampling: RolloutSettings) -> PerToken:
        with reference_of(self.policy, self.work.reference) as reference, frozen.gathered(self.work.reference_models):
            return policy_logprobs(reference, groups, sampling)

    def _require_served(
        self, drawn: Sequence[Sequence[Sampled]], groups: Sequence[TokenGroup], logprobs: PerToken, of_reference: PerToken
    ) -> dict[str, float]:
        """Check that a server has the policy's weights; returns the distance of its log-probs as metrics, empty without a server.

        Raises:
            TrainingError: another model answered.
        """
        if self.work.served is None:
            return {}
        if self.sampling.temperature != 1:  # the server's are those at temperature 1
            plain = replace(self.sampling, temperature=1.0)
            drawn, groups = drawn[:CHECKED_PROMPTS], groups[:CHECKED_PROMPTS]
            logprobs, of_reference = policy_logprobs(self.policy, groups, plain), self._reference_logprobs(groups, plain)
        sums = torch.tensor(gap_sums(drawn, logprobs, of_reference), device=self.accelerator.device)
        from_policy, from_start, tokens = self.accelerator.reduce(sums, reduction="sum").tolist()
        gap = LogprobGap(from_policy / tokens, from_start / tokens)
        require_policys_weights(gap)
        return {"server_gap_nats": gap.policy_nats}

    def _as_asked(self, prompts: Sequence[PolicyPrompt], drawn: Sequence[Sequence[Sampled]]) -> list[SampledPrompt]:
        """The answers as text, for scoring, without thoughts in front of them."""
        conversation = self.policy.conversation
        return [
            SampledPrompt(
                prompt.id,
                prompt.messages,
                tuple(split_answer(conversation, prompt.ids, one.ids).answer for one in samples),
                tuple(one.finish for one in samples),
            )
            for prompt, samples in zip(prompts, drawn, strict=True)
        ]


def _interleaved(rollouts: Sequence[Rollout], processes: int) -> list[Rollout]:
    """Restore the order of the prompts from lists in rank order."""
    share = len(rollouts) // processes
    return [rollouts[process * share + place] for place in range(share) for process in range(processes)]
