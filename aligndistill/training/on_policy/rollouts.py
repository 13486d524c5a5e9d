"""Rollouts: a policy's answers to a batch of prompts, with the log-probs, values and scores that PPO needs.

A process samples its own share of an update's rollouts; nothing here communicates with other processes.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from aligndistill.config.objectives import OnPolicy
from aligndistill.models.actor_critic import ActorCritic, outputs, token_values
from aligndistill.models.conversation import Conversation
from aligndistill.models.groups import GroupedBatch, TokenGroup
from aligndistill.models.load import LanguageModel
from aligndistill.models.logprobs import token_logprobs
from aligndistill.models.sampling import Sampled, SampleRequest, sample
from aligndistill.records import Finish, Message
from aligndistill.training.fit import TrainingJob

KEPT_TOLERANCE_NATS = 1e-4
"""The largest difference per token, nats, at which log-probs of sampling are used as those of the training pass."""

CHECKED_PROMPTS = 8


@dataclass(frozen=True)
class PolicyPrompt:
    """A training prompt."""

    id: str
    messages: tuple[Message, ...]
    ids: list[int]


@dataclass(frozen=True)
class SampledPrompt:
    """A prompt with the answers to score."""

    prompt_id: str
    messages: tuple[Message, ...]
    texts: tuple[str, ...]
    finishes: tuple[Finish, ...]


PerToken = list[list[list[float]]]
"""One number per prompt, answer and token."""

ScoreSamples = Callable[[Sequence[SampledPrompt]], list[list[float | None]]]
"""Prompts with answers -> one score per answer, higher is better; None for an answer that could not be scored."""


class Sampler(Protocol):
    """The interface of `models.sampling.sample`, which a rollout server has too."""

    def __call__(
        self,
        language_model: LanguageModel,
        requests: Sequence[SampleRequest],
        *,
        temperature: float,
        max_new_tokens: int,
        seed: int,
    ) -> list[list[Sampled]]:
        """Sample each request."""
        ...


@dataclass(frozen=True)
class Rollout:
    """A prompt's sampled answers.

    Attributes:
        logprobs, reference, values: for each answer and token, the log-probs of the policy that sampled and of the reference
            (nats), and the critic's value.
        scores: for each answer, as given by the reward source.
    """

    prompt: PolicyPrompt
    responses: list[list[int]]
    texts: tuple[str, ...]
    finishes: tuple[Finish, ...]
    logprobs: list[list[float]]
    reference: list[list[float]]
    values: list[list[float]]
    scores: list[float | None]


@dataclass(frozen=True)
class Seconds:
    """Seconds for sampling, and for computing rewards, reference log-probs and values."""

    rollout: float
    scoring: float


@dataclass(frozen=True)
class RolloutSettings:
    """How a policy samples during training."""

    samples: int
    temperature: float
    max_new_tokens: int
    batch_size: int
    seed: int
    compiled: bool = False


def rollout_settings(objective: OnPolicy, job: TrainingJob) -> RolloutSettings:
    """How the policy of a training run samples."""
    return RolloutSettings(
        objective.samples_per_prompt,
        objective.temperature,
        job.settings.max_response_tokens,
        job.runtime.per_device_eval_batch_size,
        job.seed,
        job.runtime.compile_decoding,
    )


def longest_row(prompts: Sequence[PolicyPrompt], objective: OnPolicy, job: TrainingJob, shares_prompt: bool) -> int:
    """The most tokens that a prompt and its samples may have."""
    samples, longest = objective.samples_per_prompt, max(len(prompt.ids) for prompt in prompts)
    return longest * (1 if shares_prompt else samples) + samples * job.settings.max_response_tokens


def gathered_weights(trainer: Any) -> AbstractContextManager[Any]:
    """Inside the block a trainer's policy can sample: under ZeRO-3 its weights are gathered, once for a whole rollout."""
    if not trainer.is_deepspeed_enabled:
        return nullcontext()
    from trl.models.utils import unwrap_model_for_generation  # only here: importing it takes seconds

    context: AbstractContextManager[Any] = unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator)
    return context


@torch.no_grad()
def sample_rollouts(
    policy: LanguageModel,
    prompts: Sequence[PolicyPrompt],
    keys: Sequence[str],
    sampling: RolloutSettings,
    sampler: Sampler | None = None,
) -> list[list[Sampled]]:
    """Sample answers to each prompt, batches of similar length together.

    Args:
        keys: the names of the random streams.
        sampler: None samples in this process.
    """
    ask = partial(sample, compiled=sampling.compiled) if sampler is None else sampler
    drawn: dict[int, list[Sampled]] = {}
    order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i].ids), i))
    for start in range(0, len(order), sampling.batch_size):
        chosen = order[start : start + sampling.batch_size]
        requests = [SampleRequest(prompts[i].ids, keys[i], tuple(range(sampling.samples))) for i in chosen]
        samples = ask(
            policy, requests, temperature=sampling.temperature, max_new_tokens=sampling.max_new_tokens, seed=sampling.seed
        )
        for i, of_prompt in zip(chosen, samples, strict=True):
            drawn[i] = [_cut_at_stop(policy.conversation, one) for one in of_prompt]
    return [drawn[i] for i in range(len(prompts))]


def _cut_at_stop(conversation: Conversation, sampled: Sampled) -> Sampled:
    """End an answer where the next human turn starts, as at an end token."""
    length = length_to_stop(conversation, sampled.ids)
    return sampled if length is None else Sampled(sampled.ids[:length], sampled.logprobs[:length], "stop")


def length_to_stop(conversation: Conversation, ids: Sequence[int]) -> int | None:
    """How many of an answer's tokens there are up to the start of the next human turn, with it; None if it has none."""
    decode = conversation.tokenizer.decode
    if not conversation.stops_inside(decode(ids)):
        return None
    return next(n for n in range(1, len(ids) + 1) if conversation.stops_inside(decode(ids[:n])))


def groups_of(prompts: Sequence[PolicyPrompt], drawn: Sequence[Sequence[Sampled]]) -> list[TokenGroup]:
    """Prompts and their answers as token groups."""
    return [TokenGroup(prompt.ids, [one.ids for one in samples]) for prompt, samples in zip(prompts, drawn, strict=True)]


@torch.no_grad()
def per_token(
    policy: LanguageModel, groups: Sequence[TokenGroup], batch_size: int, read: Callable[[GroupedBatch, bool], Tensor]
) -> list[list[list[Any]]]:
    """The values that `read` computes for every response token, for each group and response."""
    found: list[list[list[Any]]] = [[] for _ in groups]
    for laid_out in policy.batches(groups, batch_size):
        values_BKR = read(laid_out.batch, laid_out.share).float().tolist()
        for row, i in enumerate(laid_out.indices):
            found[i] = [values_BKR[row][k][: len(response)] for k, response in enumerate(groups[i].responses)]
    return found


def sampling_is_training(policy: LanguageModel, prompts: Sequence[PolicyPrompt], sampling: RolloutSettings) -> bool:
    """Whether the log-probs of sampling equal those of the training pass, measured on a few answers.

    They do in float32. In half precision, decoding token by token rounds differently than a whole row; then the answers are
    scored again.
    """
    some = prompts[:CHECKED_PROMPTS]
    drawn = sample_rollouts(policy, some, [f"check {number}" for number in range(len(some))], sampling)
    scored = policy_logprobs(policy, groups_of(some, drawn), sampling)
    differences = [
        abs(before - now)
        for samples, of_prompt in zip(drawn, scored, strict=True)
        for one, of_response in zip(samples, of_prompt, strict=True)
        for before, now in zip(one.logprobs, of_response, strict=True)
    ]
    return max(differences) <= KEPT_TOLERANCE_NATS


def policy_logprobs(policy: LanguageModel, groups: Sequence[TokenGroup], sampling: RolloutSettings) -> PerToken:
    """Log-probability of every response token under a policy at the sampling temperature, nats."""

    def read(batch: GroupedBatch, share: bool) -> Tensor:
        return token_logprobs(policy.model, batch, share, sampling.temperature)

    return per_token(policy, groups, sampling.batch_size, read)


def critic_values(model: ActorCritic, policy: LanguageModel, groups: Sequence[TokenGroup], sampling: RolloutSettings) -> PerToken:
    """The critic's value of every response token."""

    def read(batch: GroupedBatch, share: bool) -> Tensor:
        return token_values(model, batch, share)

    return per_token(policy, groups, sampling.batch_size, read)


def logprobs_and_values(
    model: ActorCritic, policy: LanguageModel, groups: Sequence[TokenGroup], sampling: RolloutSettings
) -> tuple[PerToken, PerToken]:
    """`policy_logprobs` and `critic_values` in one pass, of a critic that is a head on the policy."""

    def read(batch: GroupedBatch, share: bool) -> Tensor:
        found = outputs(model, batch, share, sampling.temperature)
        return torch.stack([found.logprobs_BKR, found.values_BKR], -1)

    both = per_token(policy, groups, sampling.batch_size, read)
    logprobs, values = ([[[pair[n] for pair in row] for row in rows] for rows in both] for n in (0, 1))
    return logprobs, values


@contextmanager
def reference_of(policy: LanguageModel, frozen: LanguageModel | None) -> Iterator[LanguageModel]:
    """The reference policy: a frozen copy, or the policy with its adapters disabled."""
    if frozen is not None:
        yield frozen
        return
    adapted: Any = policy.model
    with adapted.disable_adapter():
        yield policy
