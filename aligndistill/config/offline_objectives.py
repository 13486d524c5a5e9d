"""The schema of the objectives that learn from rankings."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from aligndistill.config.section import HashedIfSet, Section

Labels = Literal["hard", "soft"]
"""Whether a label is the order of two scores, or the teacher's probability."""

LEAST_PROMPTS = 4
"""The fewest prompts in an optimiser step of KTO: a baseline of fewer is mostly noise."""

Kind = Literal["forward_kl", "reverse_kl", "jsd", "skew_forward", "skew_reverse", "tvd", "akl"]
"""The divergences of `objectives/divergences.py`."""

Layer = Annotated[int, Field(ge=0)]

Weight = Literal["auto"] | Annotated[float, Field(gt=0)]


class Offline(Section):
    """An objective that learns from rankings.

    Attributes:
        default_learning_rate: the learning rate of its paper.
        default_adapter_rate: the learning rate of adapters, if it is not `ADAPTER_RATE_FACTOR` times that of all weights.
        trainer: which stage of `stages/` trains it.
        reads: its inputs besides the start, by their names in `pipeline.py`.
        best_only: whether it uses only the best response of a ranking.
        needs_mismatched: whether its baseline is measured on responses to other prompts (KTO).
    """

    default_learning_rate: ClassVar[float]
    default_adapter_rate: ClassVar[float | None] = None
    trainer: ClassVar[Literal["offline", "distil"]] = "offline"
    reads: ClassVar[tuple[str, ...]] = ("rankings",)
    best_only: ClassVar[bool] = False
    needs_mismatched: ClassVar[bool] = False

    @property
    def adapter_defaults(self) -> Mapping[str, Any]:
        """Its settings that have other defaults where adapters are trained."""
        return {}

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
        sft_weight: of the NLL per token of the best response (RPO).
    """

    default_learning_rate: ClassVar[float] = 5e-7
    reads: ClassVar[tuple[str, ...]] = ("rankings", "reference")

    kind: Literal["dpo"]
    beta: float = Field(default=0.1, gt=0)
    loss: Literal["sigmoid", "sigmoid_norm", "ipo", "hinge"] = "sigmoid"
    labels: Labels = "hard"
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    sft_weight: Annotated[float, HashedIfSet] = Field(default=0.0, ge=0)

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


class Simpo(Offline):
    """Simple preference optimisation: pairs on length-normalised log-probs with a target margin, without a reference.

    Attributes:
        beta: scale of the log-prob per token; 2 to 10 in published runs, far above DPO's.
        gamma_beta_ratio: the target margin divided by `beta`, nats per token.
        sft_weight: of the NLL per token of the best response.
        labels: as in `Dpo`.
    """

    default_learning_rate: ClassVar[float] = 5e-7

    kind: Literal["simpo"]
    beta: float = Field(default=2.0, gt=0)
    gamma_beta_ratio: float = Field(default=0.5, ge=0)
    sft_weight: float = Field(default=0.0, ge=0)
    labels: Labels = "hard"

    @property
    def learns_ties(self) -> bool:
        """As in `Dpo`."""
        return self.labels == "soft"


class Cpo(Offline):
    """Contrastive preference optimisation: pairs on summed log-probs without a reference, plus NLL of the best response.

    Attributes:
        sft_weight: of the NLL per token of the best response.
        labels: as in `Dpo`.
    """

    default_learning_rate: ClassVar[float] = 1e-6

    kind: Literal["cpo"]
    beta: float = Field(default=0.1, gt=0)
    sft_weight: float = Field(default=1.0, ge=0)
    labels: Labels = "hard"

    @property
    def learns_ties(self) -> bool:
        """As in `Dpo`."""
        return self.labels == "soft"


class Orpo(Offline):
    """Odds-ratio preference optimisation: NLL of the best response, plus pairs on its odds, without a reference.

    Attributes:
        odds_weight: of the pairs' term; the paper's lambda.
        labels: as in `Dpo`.
    """

    default_learning_rate: ClassVar[float] = 5e-6

    kind: Literal["orpo"]
    odds_weight: float = Field(default=0.1, gt=0)
    labels: Labels = "hard"

    @property
    def learns_ties(self) -> bool:
        """As in `Dpo`."""
        return self.labels == "soft"


class Kto(Offline):
    """Kahneman-Tversky optimisation: each response alone, desirable or not, against a baseline of the whole optimiser step.

    Attributes:
        labels: `hard` calls a response desirable or undesirable, `soft` weights both by sigmoid(score - the prompt's mean score).
        split: of hard labels. `mean` calls a response desirable above its prompt's mean score and undesirable below it; `margin`
            leaves out responses within `margin` of it.
        margin: on the scale of the scores; `rankings.tie_margin` by default.
        desirable_weight, undesirable_weight: `auto` makes both kinds weigh the same in the training data.
    """

    default_learning_rate: ClassVar[float] = 1e-6
    reads: ClassVar[tuple[str, ...]] = ("rankings", "reference")
    needs_mismatched: ClassVar[bool] = True

    kind: Literal["kto"]
    beta: float = Field(default=0.1, gt=0)
    labels: Labels = "hard"
    split: Literal["mean", "margin"] = "mean"
    margin: float | None = Field(default=None, gt=0)
    desirable_weight: Weight = "auto"
    undesirable_weight: Weight = "auto"

    @model_validator(mode="after")
    def _one_way_to_split(self) -> "Kto":
        if self.labels == "soft" and self.split == "margin":
            raise ValueError("soft labels weight every response and split none: remove 'split', or set labels: hard")
        if self.margin is not None and self.split != "margin":
            raise ValueError("'margin' is for split: margin: set that, or remove 'margin'")
        return self


class Sppo(Offline):
    """Self-play preference optimisation: a squared loss that draws each log-ratio to eta (P - 1/2).

    P is a response's mean probability of being better than a response of its prompt.

    Attributes:
        eta: nats; the released code's 1 / beta.
    """

    default_learning_rate: ClassVar[float] = 5e-7
    reads: ClassVar[tuple[str, ...]] = ("rankings", "reference")

    kind: Literal["sppo"]
    eta: float = Field(default=1000.0, gt=0)

    @property
    def learns_ties(self) -> bool:
        """Equal responses have P = 1/2, which draws their log-ratios to 0."""
        return True


class Divergent(Section):
    """An objective that compares next-token distributions with those of a teacher, a local model with the start's tokenizer.

    Attributes:
        divergence: between teacher p and student q. `forward_kl` is KL(p || q), `reverse_kl` KL(q || p), `jsd` and the skew forms
            compare with a mixture of both, `tvd` is the total variation, `akl` weighs the two KLs by where the student errs.
        beta: of `jsd`: the teacher's share in the mixture. Its gradient shrinks towards 0 and 1, where the KLs are.
        skew: the teacher's share in the mixture of `skew_forward`, the student's in that of `skew_reverse`.
        temperature: divides the logits of both models.
    """

    divergence: Kind = "forward_kl"
    beta: float = Field(default=0.5, gt=0, lt=1)
    skew: float = Field(default=0.1, gt=0, lt=1)
    temperature: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _settings_are_used(self) -> "Divergent":
        used = {"beta": self.divergence == "jsd", "skew": self.divergence in ("skew_forward", "skew_reverse")}
        for name, is_used in used.items():
            if not is_used and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"'{name}' has no effect with divergence '{self.divergence}': remove it")
        return self


class HiddenStates(Section):
    """The hidden-state term of distillation: states of the student in chosen layers are drawn to the teacher's in others.

    Attributes:
        layers: pairs of a student's and a teacher's layer, numbered as transformers' `hidden_states`: 0 is the embeddings, n what
            comes out of the n-th layer (of the last one, behind the final norm).
        kind: `mse` is the squared distance divided by the hidden size, `cosine` 1 - the cosine.
        weight: of the mean over the pairs, in addition to the other terms.
    """

    layers: tuple[tuple[Layer, Layer], ...]
    kind: Literal["mse", "cosine"] = "cosine"
    weight: float = Field(default=0.1, gt=0)

    @field_validator("layers")
    @classmethod
    def _each_once(cls, value: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
        if not value:
            raise ValueError("no states are compared: give pairs of a student's and a teacher's layer, or remove 'hidden'")
        if len(set(value)) < len(value):
            raise ValueError("a pair is listed twice: use 'weight' to make the term count more")
        return value

    def missing_layer(self, of_student: int | None, of_teacher: int | None) -> str | None:
        """Which of the layers does not exist, in words; None if all do.

        Args:
            of_student, of_teacher: their numbers of layers; None if not known.
        """
        for place, (whose, known) in enumerate((("student", of_student), ("teacher", of_teacher))):
            highest = max(pair[place] for pair in self.layers)
            if known is not None and highest > known:
                return f"the {whose} has no layer {highest}: its layers are 0 (the embeddings) to {known} (the last one)"
        return None


class Distil(Offline, Divergent):
    """Distillation: the student learns the teacher's next-token distributions on given answers.

    Attributes:
        temperature: divides the logits of both models in the divergence, whose gradient is scaled back.
        sft_weight: the weight of the negative log-likelihood of the answers; the divergence has the rest. At 1 it is sequence-level
            distillation (Kim and Rush 2016): the divergence is only logged.
        on: the answers that are read: the teacher's, the best of each prompt, or all. With `all`, the likelihood counts the best
            alone: others may be the student's own mistakes.
        top_k: store this many of the teacher's likeliest tokens, with the probability of all others together, and compare with
            those; by default the teacher is in memory while the student learns.
        hidden: also draw hidden states to the teacher's; with any `sft_weight`.
    """

    default_learning_rate: ClassVar[float] = 2e-5
    trainer: ClassVar[Literal["distil"]] = "distil"
    reads: ClassVar[tuple[str, ...]] = ("rankings", "teacher")

    kind: Literal["distil"]
    sft_weight: float = Field(default=0.5, ge=0, le=1)
    on: Literal["teacher", "best", "all"] = "teacher"
    top_k: int | None = Field(default=None, gt=0)
    hidden: Annotated[HiddenStates | None, HashedIfSet] = None

    @property
    def learns_ties(self) -> bool:
        """It needs no order: with `on: best`, any of equal answers is the best."""
        return True

    @model_validator(mode="after")
    def _tail_is_known(self) -> "Distil":
        if self.top_k is not None and self.temperature != 1.0:
            raise ValueError("'top_k' needs temperature 1: at another one the probability of the other tokens is not known")
        if self.top_k is not None and self.hidden is not None:
            raise ValueError(
                "'hidden' needs the teacher in memory, and 'top_k' stores its likeliest tokens alone: remove one of the two"
            )
        return self


OfflineObjective = Dpo | Rrhf | Pro | BestOfN | Simpo | Cpo | Orpo | Kto | Sppo
"""The objectives that learn from rankings alone."""
