"""The schema of the training objectives of students."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from aligndistill.config.judges import Judge
from aligndistill.config.models import KeyVariable, ServerUrl
from aligndistill.config.section import NotHashed, Section, name_or_section


class Offline(Section):
    """An objective that learns from rankings.

    Attributes:
        default_learning_rate: the learning rate of its paper.
        trainer: which stage of `stages/` trains it.
        reads: its inputs besides the start, by their names in `pipeline.py`.
        best_only: whether it uses only the best response of a ranking.
    """

    default_learning_rate: ClassVar[float]
    trainer: ClassVar[Literal["offline", "distil"]] = "offline"
    reads: ClassVar[tuple[str, ...]] = ("rankings",)
    best_only: ClassVar[bool] = False

    @property
    def learns_ties(self) -> bool:
        """Whether it learns from a ranking whose answers are all tied."""
        return False


class Dpo(Offline):
    """Direct preference optimisation.

    Attributes:
        loss: TRL's names. `sigmoid` is DPO, `sigmoid_norm` divides each log-ratio by its answer's length (Tülu 3) and needs a
            larger `beta`, `ipo` is IPO, `hinge` the hinge form (SLiC-HF).
        labels: `soft` weights both directions by the teacher's probability.
        label_smoothing: conservative DPO: the assumed share of flipped labels.
    """

    default_learning_rate: ClassVar[float] = 5e-7
    reads: ClassVar[tuple[str, ...]] = ("rankings", "reference")

    kind: Literal["dpo"]
    beta: float = Field(default=0.1, gt=0)
    loss: Literal["sigmoid", "sigmoid_norm", "ipo", "hinge"] = "sigmoid"
    labels: Literal["hard", "soft"] = "hard"
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)

    @property
    def learns_ties(self) -> bool:
        """Soft labels do: a tie has the label 0.5."""
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
    """Imitate the best candidate: the baseline for all other students."""

    default_learning_rate: ClassVar[float] = 2e-5
    best_only: ClassVar[bool] = True

    kind: Literal["best_of_n"]


OfflineObjective = Dpo | Rrhf | Pro | BestOfN
"""The objectives that learn from rankings."""


RewardSource = Annotated[
    Annotated[Literal["reward_model", "judge"], Tag("name")] | Annotated[Judge, Tag("section")], Discriminator(name_or_section)
]
"""The run's reward model, the run's judge, or a judge given inline."""


class WeightedReward(Section):
    """One term of a weighted sum of rewards."""

    source: RewardSource
    weight: float = 1.0


def _reward_kind(value: Any) -> str:
    return "sum" if isinstance(value, list | tuple) else "source"


Reward = Annotated[
    Annotated[RewardSource, Tag("source")] | Annotated[tuple[WeightedReward, ...], Field(min_length=1), Tag("sum")],
    Discriminator(_reward_kind),
]
"""The score of a sampled answer: one source, or a list of `{source, weight}` whose weighted scores are summed."""


class OnPolicy(Section):
    """An objective that learns from rewards for answers sampled from the policy.

    Attributes:
        default_learning_rate, trainer: as in `Offline`.
        samples_per_prompt: answers sampled per prompt in each update; the prompt is processed once.
        temperature: of the policy; the same for sampling, scoring and training. No top-k, no top-p.
        kl_coefficient: beta in E[reward] - beta KL(policy || start), reward units per nat.
        missing_eos_penalty: subtracted from the score of an answer that reached `max_response_tokens` without an end token.
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
        """The terms of the reward; a single source has weight 1."""
        return self.reward if isinstance(self.reward, tuple) else (WeightedReward(source=self.reward),)

    @property
    def reads(self) -> tuple[str, ...]:
        """Its inputs besides the start, by their names in `pipeline.py`."""
        uses_reward_model = any(part.source == "reward_model" for part in self.rewards)
        return ("prompts", *(("reward_model",) if uses_reward_model else ()))


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


class Ppo(OnPolicy):
    """Proximal policy optimisation. An update samples `batch_size * minibatches` prompts and trains on them `ppo_epochs` times.

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
        """See `OnPolicy`; also the reference, a separate critic's initial model, and the start's answers to compare with."""
        critic = ("critic",) if self.critic == "separate" else ()
        compared = ("start_answers",) if self.evaluate_every is not None else ()
        return (*super().reads, "reference", *critic, *compared)

    @property
    def steps_per_update(self) -> int:
        """Optimiser steps per update."""
        return self.ppo_epochs * self.minibatches


class Grpo(OnPolicy):
    """Group-relative policy optimisation with TRL's trainer and this package's rewards."""

    default_learning_rate: ClassVar[float] = 1e-6
    trainer: ClassVar[Literal["trl"]] = "trl"

    kind: Literal["grpo"]


class Rloo(OnPolicy):
    """REINFORCE leave-one-out with TRL's trainer and this package's rewards."""

    default_learning_rate: ClassVar[float] = 1e-6
    trainer: ClassVar[Literal["trl"]] = "trl"

    kind: Literal["rloo"]


class Distil(Offline):
    """Distillation: the student learns the next-token distributions of the teacher, a local model with the start's tokenizer.

    Attributes:
        divergence: between teacher p and student q. `forward_kl` is KL(p || q), `reverse_kl` KL(q || p), `jsd` and the skew forms
            compare with a mixture of both, `tvd` is the total variation, `akl` weighs the two KLs by where the student errs.
        beta: of `jsd`: the teacher's share in the mixture. Its gradient shrinks towards 0 and 1, where the KLs are.
        skew: the teacher's share in the mixture of `skew_forward`, the student's in that of `skew_reverse`.
        temperature: divides the logits of both models in the divergence, whose gradient is scaled back.
        sft_weight: the weight of the negative log-likelihood of the answers; the divergence has the rest.
        on: the answers that are read: the teacher's, the best of each prompt, or all. With `all`, the likelihood counts the best
            alone: others may be the student's own mistakes.
        top_k: store this many of the teacher's likeliest tokens, with the probability of all others together, and compare with
            those; by default the teacher is in memory while the student learns.
    """

    default_learning_rate: ClassVar[float] = 2e-5
    trainer: ClassVar[Literal["distil"]] = "distil"
    reads: ClassVar[tuple[str, ...]] = ("rankings", "teacher")

    kind: Literal["distil"]
    divergence: Literal["forward_kl", "reverse_kl", "jsd", "skew_forward", "skew_reverse", "tvd", "akl"] = "forward_kl"
    beta: float = Field(default=0.5, gt=0, lt=1)
    skew: float = Field(default=0.1, gt=0, lt=1)
    temperature: float = Field(default=1.0, gt=0)
    sft_weight: float = Field(default=0.5, ge=0, lt=1)
    on: Literal["teacher", "best", "all"] = "teacher"
    top_k: int | None = Field(default=None, gt=0)

    @property
    def learns_ties(self) -> bool:
        """It needs no order: with `on: best`, any of equal answers is the best."""
        return True

    @model_validator(mode="after")
    def _settings_are_used(self) -> "Distil":
        used = {"beta": self.divergence == "jsd", "skew": self.divergence in ("skew_forward", "skew_reverse")}
        for name, is_used in used.items():
            if not is_used and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"'{name}' has no effect with divergence '{self.divergence}': remove it")
        if self.top_k is not None and self.temperature != 1.0:
            raise ValueError("'top_k' needs temperature 1: at another one the probability of the other tokens is not known")
        return self


Objective = Annotated[OfflineObjective | Ppo | Grpo | Rloo | Distil, Field(discriminator="kind")]
