"""The schema of the objectives: what a student may learn by."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, field_validator

from aligndistill.config.judges import Judge
from aligndistill.config.models import KeyVariable, ServerUrl
from aligndistill.config.section import NotHashed, Section, name_or_section


class Offline(Section):
    """What learns from rankings.

    Attributes:
        default_learning_rate: what its paper used.
        trainer: which stage of `stages/` trains it.
        reads: what it reads besides the start, by the names of `pipeline.py`.
        best_only: it looks at nothing but the best response of a ranking.
    """

    default_learning_rate: ClassVar[float]
    trainer: ClassVar[Literal["offline"]] = "offline"
    reads: ClassVar[tuple[str, ...]] = ("rankings",)
    best_only: ClassVar[bool] = False

    @property
    def learns_ties(self) -> bool:
        """Whether a ranking whose answers are all tied says something to it."""
        return False


class Dpo(Offline):
    """Direct preference optimisation; `loss` also gives IPO and the hinge form (SLiC-HF).

    Attributes:
        labels: `soft` weighs both directions by the teacher's probability.
        label_smoothing: conservative DPO: the share of labels believed to be flipped.
    """

    default_learning_rate: ClassVar[float] = 5e-7
    reads: ClassVar[tuple[str, ...]] = ("rankings", "reference")

    kind: Literal["dpo"]
    beta: float = Field(default=0.1, gt=0)
    loss: Literal["sigmoid", "ipo", "hinge"] = "sigmoid"
    labels: Literal["hard", "soft"] = "hard"
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)

    @property
    def learns_ties(self) -> bool:
        """A soft label of one half."""
        return self.labels == "soft"


class Rrhf(Offline):
    """Rank responses to align human feedback: hinge on length-normalised log-probs, plus NLL of the best response."""

    default_learning_rate: ClassVar[float] = 2e-5

    kind: Literal["rrhf"]
    sft_weight: float = Field(default=1.0, ge=0)


class Pro(Offline):
    """Preference ranking optimisation: list-wise contrast with reward-gap temperatures, plus NLL of the best response."""

    default_learning_rate: ClassVar[float] = 5e-6

    kind: Literal["pro"]
    sft_weight: float = Field(default=0.05, ge=0)


class BestOfN(Offline):
    """Imitate the best candidate: the baseline that every other student must beat."""

    default_learning_rate: ClassVar[float] = 2e-5
    best_only: ClassVar[bool] = True

    kind: Literal["best_of_n"]


OfflineObjective = Dpo | Rrhf | Pro | BestOfN
"""What learns from rankings."""

RewardSource = Annotated[
    Annotated[Literal["reward_model", "judge"], Tag("name")] | Annotated[Judge, Tag("section")], Discriminator(name_or_section)
]
"""The run's reward model, the run's judge, or a judge of its own."""


class WeightedReward(Section):
    """One part of a reward that is a sum."""

    source: RewardSource
    weight: float = 1.0


def _reward_kind(value: Any) -> str:
    return "sum" if isinstance(value, list | tuple) else "source"


Reward = Annotated[
    Annotated[RewardSource, Tag("source")] | Annotated[tuple[WeightedReward, ...], Field(min_length=1), Tag("sum")],
    Discriminator(_reward_kind),
]
"""Where the score of a sampled answer comes from: one source, or a list of `{source, weight}` that are added up."""


class OnPolicy(Section):
    """What learns from rewards for answers that it samples itself.

    Attributes:
        default_learning_rate, trainer: as in `Offline`.
        samples_per_prompt: answers per prompt and update, from one reading of the prompt.
        temperature: of the policy that is learned; applied alike when sampling, scoring and training. No top-k, no top-p.
        kl_coefficient: beta in E[reward] - beta KL(policy || start), reward units per nat.
        missing_eos_penalty: subtracted from the score of an answer that reached `max_response_tokens` without an end.
    """

    default_learning_rate: ClassVar[float]
    trainer: ClassVar[Literal["ppo", "trl"]]

    reward: Reward = "reward_model"
    samples_per_prompt: int = Field(default=4, gt=0)
    temperature: float = Field(default=1.0, gt=0)
    kl_coefficient: float = Field(default=0.05, ge=0)
    missing_eos_penalty: float = Field(default=1.0, ge=0)

    @property
    def rewards(self) -> tuple[WeightedReward, ...]:
        """The parts of the reward; one of weight 1 unless a list is given."""
        return self.reward if isinstance(self.reward, tuple) else (WeightedReward(source=self.reward),)

    @property
    def reads(self) -> tuple[str, ...]:
        """What it reads besides the start, by the names of `pipeline.py`."""
        uses_reward_model = any(part.source == "reward_model" for part in self.rewards)
        return ("prompts", *(("reward_model",) if uses_reward_model else ()))


class RolloutServer(Section):
    """A vLLM server that samples for a policy while it learns. Before each update it is given the policy's weights.

    All of it stays out of fingerprints: whichever server it is, the weights are the policy's.

    Attributes:
        base_url: ends in /v1.
        name: the model's name on the server.
        concurrency: prompts that each process asks about at the same time.
        timeout_seconds: for one try of one request; loading the weights is one.
        max_retries: tries after the first.
        weights: a folder that is under this path here and at the server, for the weights on their way; by default one inside the
            store.
    """

    base_url: Annotated[ServerUrl, NotHashed]
    name: Annotated[str, NotHashed]
    api_key_env: Annotated[KeyVariable | None, NotHashed] = None
    concurrency: Annotated[int, NotHashed] = Field(default=64, gt=0)
    timeout_seconds: Annotated[float, NotHashed] = Field(default=600, gt=0)
    max_retries: Annotated[int, NotHashed] = Field(default=5, ge=0)
    weights: Annotated[str | None, NotHashed] = None

    @field_validator("base_url")
    @classmethod
    def _has_a_root(cls, value: str) -> str:
        if not value.rstrip("/").endswith("/v1"):
            raise ValueError("expected an address that ends in /v1, such as http://localhost:8000/v1: weights are loaded beside it")
        return value


class Ppo(OnPolicy):
    """Proximal policy optimisation. One update samples `batch_size * minibatches` prompts and learns from them `ppo_epochs` times.

    Attributes:
        critic: `separate` is a model of its own, which begins as the reward model where that has the start's trunk and else as the
            start; `shared` is a value head on the policy's trunk.
        critic_learning_rate: of a separate critic; the policy's by default.
        kl_target: nats per answer; moves the coefficient towards it (Ziegler et al. 2019), with `kl_horizon` in samples.
        kl_budget: nats per answer; once passed, training ends at the last checkpoint that was inside it.
        normalise_rewards: subtract the running mean of all scores so far and divide by their standard deviation.
        reward_clip: cut scores (normalised ones, if they are) to this distance from 0.
        minibatches: optimiser steps per pass over an update's answers.
        evaluate_every: updates between looks at held-out prompts: the win rate over the start, by `evaluation.judge`.
        evaluate_prompts: how many held-out prompts are looked at.
        server: samples in the policy's place; by default the policy samples in its own process.
    """

    default_learning_rate: ClassVar[float] = 3e-6
    trainer: ClassVar[Literal["ppo"]] = "ppo"

    kind: Literal["ppo"]
    critic: Literal["separate", "shared"] = "separate"
    critic_learning_rate: float | None = Field(default=None, gt=0)
    ppo_epochs: int = Field(default=4, gt=0)
    minibatches: int = Field(default=1, gt=0)
    gamma: float = Field(default=1.0, gt=0, le=1)
    gae_lambda: float = Field(default=0.95, ge=0, le=1)
    clip_range: float = Field(default=0.2, gt=0, lt=1)
    value_clip_range: float | None = Field(default=0.2, gt=0)
    value_coefficient: float = Field(default=0.1, ge=0)
    entropy_coefficient: float = Field(default=0.0, ge=0)
    whiten_advantages: bool = True
    normalise_rewards: bool = False
    reward_clip: float | None = Field(default=None, gt=0)
    kl_target: float | None = Field(default=None, gt=0)
    kl_horizon: int = Field(default=10000, gt=0)
    kl_budget: float | None = Field(default=None, gt=0)
    evaluate_every: int | None = Field(default=None, gt=0)
    evaluate_prompts: int = Field(default=64, gt=0)
    server: RolloutServer | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        """See `OnPolicy`; also the reference, what a separate critic begins as, and the start's answers to compare with."""
        critic = ("critic",) if self.critic == "separate" else ()
        compared = ("start_answers",) if self.evaluate_every is not None else ()
        return (*super().reads, "reference", *critic, *compared)

    @property
    def steps_per_update(self) -> int:
        """Optimiser steps between one sampling and the next."""
        return self.ppo_epochs * self.minibatches


class Grpo(OnPolicy):
    """Group-relative policy optimisation by TRL's trainer, with this project's rewards."""

    default_learning_rate: ClassVar[float] = 1e-6
    trainer: ClassVar[Literal["trl"]] = "trl"

    kind: Literal["grpo"]


class Rloo(OnPolicy):
    """REINFORCE leave-one-out by TRL's trainer, with this project's rewards."""

    default_learning_rate: ClassVar[float] = 1e-6
    trainer: ClassVar[Literal["trl"]] = "trl"

    kind: Literal["rloo"]


Objective = Annotated[Dpo | Rrhf | Pro | BestOfN | Ppo | Grpo | Rloo, Field(discriminator="kind")]
