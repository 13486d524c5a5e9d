"""The schema of reward models and students."""

from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from aligndistill.config.models import LocalModel, Lora, OwnStart
from aligndistill.config.objectives import Objective, Ppo, Rewarded
from aligndistill.config.offline_objectives import Distil, Labels
from aligndistill.config.section import HashedIfSet, NotHashed, with_defaults
from aligndistill.config.training import Training

# -------------------------------------------------------------------------------------------------------- reward model

Pooling = Literal["last", "mean"]

HEAD_LEARNING_RATE = 1e-3
"""The default of a head alone, found on a real judge's scores (docs/objectives/reward_model.md)."""


class RewardTraining(Training):
    """A reward model trained with the Bradley-Terry loss on the mean over each prompt's strictly ordered pairs.

    Attributes:
        model: the backbone; the start by default.
        lora: trains adapters and the head instead of all weights; independent of the start's `lora`.
        trains: `head` trains the head alone, on a backbone that stays as it is.
        labels: `hard` trains on the order, `soft` on the teacher's probability. `auto`: soft where the verdicts are probabilities,
            else hard (docs/objectives/reward_model.md).
        margin: subtract the (logit-scale) score difference times this from the reward difference, as Llama 2 does.
        centering: weight of the squared sum of a pair's two rewards, as in TRL, which keeps rewards near zero.
        ensemble: so many heads over one backbone, each with another initialisation and bootstrap weights of the prompts. The reward
            is their mean; how far they are apart says how uncertain it is.
        pooling: what the head reads: `last`, the hidden state of an answer's last token, or `mean`, that of all its tokens,
            which is better with a pretrained backbone and few rankings, but which other libraries cannot load.
        length_debiased: explain preferences by length first, and by the reward what is left; the reward has no length term.
    """

    model: LocalModel | None = None
    lora: Lora | None = None
    trains: Annotated[Literal["all", "head"], HashedIfSet] = "all"
    learning_rate: float = Field(default=1e-5, gt=0)
    labels: Literal["auto", "hard", "soft"] = "auto"
    margin: float = Field(default=0.0, ge=0)
    centering: float = Field(default=0.01, ge=0)
    length_debiased: Annotated[bool, HashedIfSet] = False
    ensemble: Annotated[int, HashedIfSet] = Field(default=1, gt=0)
    pooling: Annotated[Pooling, HashedIfSet] = "last"

    @property
    def pair_labels(self) -> Labels:
        """What `labels` says in a resolved config, which has no `auto`."""
        return "soft" if self.labels == "soft" else "hard"

    @model_validator(mode="after")
    def _default_learning_rate(self) -> "RewardTraining":
        if self.lora is not None and self.trains == "head":
            raise ValueError("`lora` trains adapters, and `trains: head` nothing but the head: remove one of the two")
        if self.has_default_rate and (self.lora is not None or self.trains == "head"):
            rate = HEAD_LEARNING_RATE if self.lora is None else self.adapter_learning_rate
            object.__setattr__(self, "learning_rate", rate)
        return self


# ------------------------------------------------------------------------------------------------------------ students


@dataclass(frozen=True)
class TeacherTokens:
    """Which tokens of a teacher are stored: everything that decides them besides the models and the rankings."""

    top_k: int
    on: Literal["teacher", "best", "all"]
    max_prompt_tokens: int
    max_response_tokens: int


class Student(Training):
    """A student trained on the rankings or on rewards. `learning_rate` defaults to that of the objective's paper, and to the
    objective's rate for adapters if the start has `lora`.

    Attributes:
        seed: of its training; the run's by default.
        start: trained instead of the run's start; the reference as well. It may have another tokenizer unless tokens are compared.
    """

    objective: Objective
    seed: Annotated[int | None, NotHashed] = Field(default=None, ge=0, lt=2**32)
    start: Annotated[OwnStart | None, NotHashed] = None

    @property
    def full_learning_rate(self) -> float:
        """The learning rate of the objective's paper."""
        return self.objective.default_learning_rate

    @property
    def adapter_learning_rate(self) -> float:
        """The objective's own rate for adapters if it has one, and a multiple of its paper's otherwise."""
        own = self.objective.default_adapter_rate
        return super().adapter_learning_rate if own is None else own

    def for_adapters(self) -> Self:
        """See `Training`; the same for the objective's settings."""
        objective = with_defaults(self.objective, self.objective.adapter_defaults)
        return super().for_adapters().model_copy(update={"objective": objective})

    @property
    def teacher_tokens(self) -> TeacherTokens | None:
        """What is stored of the teacher before this student is distilled; None if nothing is."""
        objective = self.objective
        if not isinstance(objective, Distil) or objective.top_k is None:
            return None
        return TeacherTokens(objective.top_k, objective.on, self.max_prompt_tokens, self.max_response_tokens)

    @model_validator(mode="after")
    def _published_learning_rate(self) -> "Student":
        if self.has_default_rate:  # a before-validator would lose the strictness of JSON
            object.__setattr__(self, "learning_rate", self.full_learning_rate)
        return self

    def sampled_prompts(self, train_prompts: int) -> int:
        """How many prompts an on-policy student samples answers to, counting repeats."""
        objective = self.objective
        passes, minibatches = (objective.ppo_epochs, objective.minibatches) if isinstance(objective, Ppo) else (1, 1)
        if self.max_steps > 0:
            return self.max_steps // passes * self.batch_size
        if isinstance(objective, Rewarded):  # they sample for whole updates
            return self.whole_updates(train_prompts, minibatches) * self.batch_size * minibatches
        return round(train_prompts * self.num_train_epochs)
