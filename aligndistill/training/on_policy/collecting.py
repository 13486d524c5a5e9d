"""An update's rollouts: every process samples its share, reads log-probs and values, asks for scores, and gets all the others'."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import torch
from accelerate.utils import gather_object

from aligndistill.config.objectives import Ppo
from aligndistill.models.actor_critic import ActorCritic
from aligndistill.models.groups import TokenGroup
from aligndistill.models.load import LanguageModel
from aligndistill.models.sampling import Sampled
from aligndistill.processes.ranks import from_all
from aligndistill.training.on_policy import frozen
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
    """What PPO learns on and from.

    Attributes:
        reference: the frozen start; None where the policy has adapters that can be switched off.
        score: the reward source.
        win_rate: a policy's win rate over the start on held-out prompts, which all processes ask for together; it is None where no
            verdict could be read. None where nothing is looked at.
        keep_samples: told of every update's number and rollouts, on the first process.
        frozen: the models that `score` reads; ZeRO-3 shards them, as it does the reference.
        served: what samples in the policy's place; None where the policy does so itself.
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
        """The frozen start's, where there is one."""
        return [self.reference.model] if self.reference is not None else []


@dataclass(frozen=True)
class CollectedRollouts:
    """An update's rollouts.

    Attributes:
        rollouts: of all processes, in the order of the prompts.
        keeps_logprobs: whether log-probs of sampling are used as they are.
        figures: seconds, and what was seen on the way.
    """

    rollouts: list[Rollout]
    keeps_logprobs: bool
    metrics: dict[str, float]


@dataclass(frozen=True)
class Collector:
    """Collects rollouts of a policy as it is at the time.

    Attributes:
        model: holds the policy and its critic, in evaluation mode when asked.
        policy: how the policy inside reads conversations.
        sampling: how it answers; its batch size counts prompts.
        whole_weights: gathers sharded weights for as long as they are read.
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
            update: its number names the random streams.
            places: of the update's prompts, for all processes together.
            keeps: whether log-probs of sampling are used as they are; None measures it.
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
        """KL(policy || reference) per answer, by one more sampling that nothing learns from."""
        with self.gathered_weights(), self.accelerator.autocast():
            prompts, drawn = self._draw(update, places)
            groups = groups_of(prompts, drawn)
            logprobs, of_reference = self._policy_logprobs(drawn, groups, keeps), self._reference_logprobs(groups, self.sampling)
            self._require_served(drawn, groups, logprobs, of_reference)
        answers = [
            sum(policy) - sum(reference)
            for rows in zip(logprobs, of_reference, strict=True)
            for policy, reference in zip(*rows, strict=True)
        ]
        return fmean(gather_object(answers))

    def _sampling_is_training(self) -> bool:
        """Whether that holds in every process: rounding may differ between their devices, and all must go the same way."""
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
        at_once = replace(self.sampling, batch_size=len(prompts))  # how many are under way is the server's matter
        return prompts, sample_rollouts(self.policy, prompts, keys, at_once, served.server.sample)

    def _logprobs_and_values(
        self, drawn: Sequence[Sequence[Sampled]], groups: Sequence[TokenGroup], keeps: bool
    ) -> tuple[PerToken, PerToken]:
        if self.model.critic is None and not keeps:  # one pass has both
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
        """Hold a server to the policy's weights, and say how near its log-probs are; nothing where there is none.

        Raises:
            TrainingError: it was another model that answered.
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
        """The answers as text, for whoever scores them."""
        text = self.policy.conversation.response_text
        return [
            SampledPrompt(
                prompt.id,
                prompt.messages,
                tuple(text(prompt.ids, one.ids) for one in samples),
                tuple(one.finish for one in samples),
            )
            for prompt, samples in zip(prompts, drawn, strict=True)
        ]


def _interleaved(rollouts: Sequence[Rollout], processes: int) -> list[Rollout]:
    """Process after process, put back into the order of the prompts."""
    share = len(rollouts) // processes
    return [rollouts[process * share + place] for place in range(share) for process in range(processes)]
