"""The schema of the training objectives of students."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from aligndistill.config.judges import Judge
from aligndistill.config.offline_objectives import Distil, Divergent, Kind, OfflineObjective
from aligndistill.config.section import HashedIfSet, NotHashed, Section, name_or_section
from aligndistill.config.servers import KeyVariable, ServerUrl

RewardSource = Annotated[
    Annotated[Literal["reward_model", "judge"], Tag("name")] | Annotated[Judge, Tag("section")], Discriminator(name_or_section)
]
"""The run's reward model, the run's judge, or a judge given inline."""


class WeightedReward(Section):
    """One term of a weighted sum of rewards."""

    source: RewardSource
    weight: float = 1.0
    pessimism: Annotated[float, HashedIfSet] = Field(default=0.0, ge=0)


def _reward_kind(value: Any) -> str:
    return "sum" if isinstance(value, list | tuple) else "source"


Reward = Annotated[
    Annotated[RewardSource, Tag("source")] | Annotated[tuple[WeightedReward, ...], Field(min_length=1), Tag("sum")],
    Discriminator(_reward_kind),
]
"""The score of a sampled answer: one source, or a list of `{source, weight}` whose weighted scores are summed.

`pessimism` lowers the score of a reward model with an ensemble by this times the standard deviation over its members."""


class OnPolicy(Section):
    """An objective that learns from answers sampled from the policy.

    Attributes:
        default_learning_rate, default_adapter_rate, trainer: as in `Offline`.
        samples_per_prompt: answers sampled per prompt in each update; the prompt is processed once.
        temperature: of the policy; the same for sampling, scoring and training. No top-k, no top-p.
    """

    default_learning_rate: ClassVar[float]
    default_adapter_rate: ClassVar[float | None] = None
    trainer: ClassVar[Literal["ppo", "trl", "on_policy_distil"]]

    samples_per_prompt: int = Field(default=4, gt=0)
    temperature: float = Field(default=1.0, gt=0)

    @property
    def adapter_defaults(self) -> Mapping[str, Any]:
        """See `Offline`."""
        return {}

    @property
    def reads(self) -> tuple[str, ...]:
        """Its inputs besides the start, by their names in `pipeline.py`."""
        return ("prompts",)


class Rewarded(OnPolicy):
    """An on-policy objective that learns from rewards for the answers.

    Attributes:
        kl_coefficient: beta in E[reward] - beta KL(policy || start), reward units per nat.
        missing_eos_penalty: subtracted from the score of an answer that reached `max_response_tokens` without an end token.
    """

    reward: Reward = "reward_model"
    kl_coefficient: float = Field(default=0.05, ge=0)
    missing_eos_penalty: float = Field(default=1.0, ge=0)

    @property
    def rewards(self) -> tuple[WeightedReward, ...]:
        """The terms of the reward; a single source has weight 1."""
        return self.reward if isinstance(self.reward, tuple) else (WeightedReward(source=self.reward),)

    @property
    def reads(self) -> tuple[str, ...]:
        """See `OnPolicy`; also the run's reward model, if that is a term of the reward."""
        uses_reward_model = any(part.source == "reward_model" for part in self.rewards)
        return (*super().reads, *(("reward_model",) if uses_reward_model else ()))


class RolloutServer(Section):
    """A vLLM server that samples from a policy during training. It loads the policy's current weights before each update.

    No field is part of a fingerprint: the weights are the policy's, whichever server is used.

    Attributes:
        base_url: ends in /v1.
        name: the model's name on the server.
        concurrency: concurrent requests per process, one prompt each.
        timeout_seconds: for one attempt of one request; loading the weights is one request.
        max_retries: attempts after the first.
        weights: a folder for transferring weights, reachable under this path both here and on the server; by default inside
            the store.
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
            raise ValueError(
                "expected a URL that ends in /v1, such as http://localhost:8000/v1: the server's other endpoints are beside it"
            )
        return value


class Ppo(Rewarded):
    """Proximal policy optimisation. An update samples `batch_size * minibatches` prompts and trains on them `ppo_epochs` times.
    Where adapters are trained, `critic`, `ppo_epochs` and `gae_lambda` have other defaults (`adapter_defaults`).

    Attributes:
        critic: `separate` is its own model, initialised from the reward model if that has the start's backbone and from the start
            otherwise; `shared` is a value head on the policy's backbone.
        critic_learning_rate: of a separate critic; the policy's by default.
        kl_target: nats per answer; adapts the coefficient to reach it (Ziegler et al. 2019), with `kl_horizon` in samples.
        kl_budget: nats per answer; when it is exceeded, training ends at the last checkpoint within it.
        normalise_rewards: subtract the running mean of all scores and divide by their running standard deviation.
        reward_clip: clip scores (after normalisation, if any) to this absolute value.
        minibatches: optimiser steps per pass over an update's answers.
        evaluate_every: updates between evaluations on held-out prompts: the win rate over the start, by `evaluation.judge`.
        evaluate_prompts: how many held-out prompts are used for that.
        server: a server to sample on; by default the policy is sampled in its own process.
    """

    default_learning_rate: ClassVar[float] = 3e-6
    default_adapter_rate: ClassVar[float | None] = 1e-4
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
        """See `Rewarded`; also the reference, a separate critic's initial model, and the start's answers to compare with."""
        critic = ("critic",) if self.critic == "separate" else ()
        compared = ("start_answers",) if self.evaluate_every is not None else ()
        return (*super().reads, "reference", *critic, *compared)

    @property
    def steps_per_update(self) -> int:
        """Optimiser steps per update."""
        return self.ppo_epochs * self.minibatches

    @property
    def adapter_defaults(self) -> Mapping[str, Any]:
        """See `Offline`; as measured on a real model (docs/performance.md, "A real model and a known reward"). A learning rate for
        a separate critic asks for one."""
        separate = "critic_learning_rate" in self.model_fields_set
        return {"critic": "separate" if separate else "shared", "ppo_epochs": 2, "gae_lambda": 1.0}


class Grpo(Rewarded):
    """Group-relative policy optimisation with TRL's trainer and this package's rewards."""

    default_learning_rate: ClassVar[float] = 1e-6
    trainer: ClassVar[Literal["trl"]] = "trl"

    kind: Literal["grpo"]


class Rloo(Rewarded):
    """REINFORCE leave-one-out with TRL's trainer and this package's rewards."""

    default_learning_rate: ClassVar[float] = 1e-6
    trainer: ClassVar[Literal["trl"]] = "trl"

    kind: Literal["rloo"]


class OnPolicyDistil(OnPolicy, Divergent):
    """On-policy distillation: at each token that the student wrote, the teacher says what it would have written. No reward.

    An update is one optimiser step: `batch_size` prompts are answered, and the answers trained on once.

    Attributes:
        temperature: divides the logits of both models, when sampling and in the divergence, whose gradient is scaled back.
        form: `full` compares both distributions over the whole vocabulary; `sampled` reads the sampled token alone, by a policy
            gradient whose mean is that of `reverse_kl`, and with a teacher behind a server, too.
        advantage_clip: of `sampled`: clip log(p / q) of a token to this absolute value, nats.
        kl_budget: as in `Ppo`, from the reference. It costs two more forward passes of each answer and, without adapters, the
            reference's memory.
    """

    default_learning_rate: ClassVar[float] = 5e-5
    default_adapter_rate: ClassVar[float | None] = 1e-4
    trainer: ClassVar[Literal["on_policy_distil"]] = "on_policy_distil"

    kind: Literal["on_policy_distil"]
    divergence: Kind = "reverse_kl"
    form: Literal["full", "sampled"] = "full"
    samples_per_prompt: int = Field(default=1, gt=0)
    advantage_clip: float = Field(default=10.0, gt=0)
    kl_budget: Annotated[float | None, HashedIfSet] = Field(default=None, gt=0)

    @property
    def reads(self) -> tuple[str, ...]:
        """See `OnPolicy`; also the teacher and, for its budget, the reference."""
        return (*super().reads, "teacher", *(("reference",) if self.kl_budget is not None else ()))

    @model_validator(mode="after")
    def _settings_of_the_form(self) -> "OnPolicyDistil":
        if self.form == "sampled" and self.divergence != "reverse_kl":
            raise ValueError("form 'sampled' is an estimate of 'reverse_kl': remove 'divergence', or set form: full")
        if self.form == "full" and self.advantage_clip != type(self).model_fields["advantage_clip"].default:
            raise ValueError("'advantage_clip' has no effect with form 'full': remove it")
        return self


Objective = Annotated[OfflineObjective | Ppo | Grpo | Rloo | Distil | OnPolicyDistil, Field(discriminator="kind")]
