"""The schema of a run: what a YAML file may say. Frozen, typed, and it refuses what it does not know.

A section's settings decide the result and are hashed into the names of what it makes. `runtime` alone stays out of the hash:
it decides where and how fast. Keys that users know from Hugging Face keep their names there and here.
"""

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from aligndistill.config_audit import AuditProbes, AuditStop, AuditWarn
from aligndistill.config_section import Section as Section  # others import the whole schema from here
from aligndistill.redaction import redact

PLUGIN_PATTERN = r"^[\w.]+:[\w.]+$"
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""A name that is safe as a folder's."""

PluginName = Annotated[str, Field(pattern=PLUGIN_PATTERN)]
"""`package.module:name`, importable from the working directory or the environment."""


# ---------------------------------------------------------------------------------------------------------------- data


class Source(Section):
    """Where rows come from: a file, a folder of files, or a data set on the Hub at a pinned revision.

    Attributes:
        path: a JSON, JSONL, CSV or Parquet file (`.gz` too), a folder of such files or from `save_to_disk`, or the Hub name of a
            data set.
        revision: the commit of the Hub data set; required for one, so that a run means the same tomorrow.
        name: the Hub data set's configuration.
        split: the Hub data set's split.
        format: `auto` reads it off the columns. `hh`: transcripts in `chosen`/`rejected`. `preference`: TRL's, with an explicit
            or implicit prompt. `prompts`: prompt-only, `messages`, or `prompt` and `completion`. `rankings`: `prompt`,
            `responses`, `scores`. `distilabel`, `rewardbench` (version 2), `ultrafeedback`: the data sets' own columns.
        columns: our name to the file's name, as in `{prompt: question}`.
        limit: read no more rows than this.
        on_bad_row: stop at a row that cannot be read, or drop and count it.
    """

    path: str
    revision: str | None = None
    name: str | None = None
    split: str = "train"
    format: Literal["auto", "distilabel", "hh", "preference", "prompts", "rankings", "rewardbench", "ultrafeedback"] = "auto"
    columns: dict[str, str] = Field(default={})
    limit: int | None = Field(default=None, gt=0)
    on_bad_row: Literal["error", "drop"] = "error"


class Prompts(Section):
    """The prompts of the run. `held_out` is the share, by hash of the prompt, that only the evaluation sees."""

    source: Source
    held_out: float = Field(default=0.1, gt=0, lt=1)


# -------------------------------------------------------------------------------------------------------------- models


class FromScratch(Section):
    """A new model of a Hugging Face architecture, with a byte-level BPE tokenizer trained on the demonstrations."""

    architecture: str = "llama"
    vocab_size: int = Field(default=1024, ge=300)
    hidden_size: int = Field(default=128, gt=0)
    num_hidden_layers: int = Field(default=3, gt=0)
    num_attention_heads: int = Field(default=4, gt=0)
    num_key_value_heads: int | None = Field(default=None, gt=0)
    intermediate_size: int | None = Field(default=None, gt=0)
    max_position_embeddings: int = Field(default=256, gt=0)
    tie_word_embeddings: bool = True

    @model_validator(mode="after")
    def _heads_divide(self) -> "FromScratch":
        if self.hidden_size % self.num_attention_heads:
            raise ValueError("'hidden_size' must be a multiple of 'num_attention_heads'")
        if self.num_attention_heads % (self.num_key_value_heads or 1):
            raise ValueError("'num_attention_heads' must be a multiple of 'num_key_value_heads'")
        return self


class Lora(Section):
    """Low-rank adapters through peft; names are peft's."""

    r: int = Field(default=16, gt=0)
    lora_alpha: int = Field(default=32, gt=0)
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: str | tuple[str, ...] = "all-linear"


class LocalModel(Section):
    """A causal language model that runs here.

    Attributes:
        model: a Hub name or a local folder; leave it out for `from_scratch`.
        layout: how a conversation becomes text. `chat`: the tokenizer's template. `transcript`: Human/Assistant turns.
            `plain`: the response simply continues the prompt.
        trust_remote_code: run code that comes with the model. Off unless asked for, and never inherited.
    """

    kind: Literal["local"] = "local"
    model: str | None = None
    revision: str | None = None
    from_scratch: FromScratch | None = None
    layout: Literal["chat", "transcript", "plain"] = "chat"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    attn_implementation: str | None = None
    trust_remote_code: bool = False

    @model_validator(mode="after")
    def _one_origin(self) -> "LocalModel":
        if (self.model is None) == (self.from_scratch is None):
            raise ValueError("give either 'model' (a Hub name or a folder) or 'from_scratch'; the other one must be absent or null")
        return self


class StudentModel(LocalModel):
    """The student before it is aligned; with `lora`, adapters are trained instead of all weights."""

    lora: Lora | None = None


class EndpointModel(Section):
    """A model behind an OpenAI-compatible HTTP server. The key is read from the environment variable named here, only."""

    pace: ClassVar[frozenset[str]] = frozenset({"api_key_env", "concurrency", "timeout_seconds", "max_retries"})
    """Settings that change how the server is reached, never what it answers: they stay out of fingerprints."""

    kind: Literal["endpoint"]
    base_url: str
    name: str
    api_key_env: str | None = None
    concurrency: int = Field(default=8, gt=0)
    timeout_seconds: float = Field(default=120, gt=0)
    max_retries: int = Field(default=5, ge=0)

    @field_validator("base_url")
    @classmethod
    def _address_without_credentials(cls, value: str) -> str:
        address = urlsplit(value)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError("expected the address of a server, such as http://localhost:8000/v1")
        if "@" in address.netloc or address.query or address.fragment:
            raise ValueError("an address carries no user, password or query, because it is written to files: use 'api_key_env'")
        return value

    @field_validator("api_key_env")
    @classmethod
    def _name_of_a_variable(cls, value: str | None) -> str | None:
        if value is not None and (not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value) or redact(value) != value):
            raise ValueError("expected the name of an environment variable, such as OPENAI_API_KEY, never the key itself")
        return value


# ------------------------------------------------------------------------------------------------------------ training


class Training(Section):
    """How long and how hard to train.

    Attributes:
        batch_size: prompts per optimiser step, over all processes; how it is split is `runtime`'s.
        max_steps: stop after so many optimiser steps; -1 trains `num_train_epochs`.
        max_prompt_tokens: prompts longer than this are left out and counted: half a question is another question.
        max_response_tokens: longer responses are cut, and have no end token then.
    """

    learning_rate: float = Field(default=2e-5, gt=0)
    batch_size: int = Field(default=32, gt=0)
    num_train_epochs: float = Field(default=1.0, gt=0)
    max_steps: int = -1
    warmup_ratio: float = Field(default=0.03, ge=0, lt=1)
    lr_scheduler_type: str = "cosine"
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    max_prompt_tokens: int = Field(default=512, gt=0)
    max_response_tokens: int = Field(default=512, gt=0)


class Sft(Training):
    """Supervised start: the model imitates demonstrations (rows with a prompt and a completion, or `messages`)."""

    demonstrations: Source


class Teacher(LocalModel):
    """A local teacher, which may be taught by demonstrations first."""

    sft: Sft | None = None


def _model_kind(value: Any) -> str:
    kind = value.get("kind", "local") if isinstance(value, dict) else getattr(value, "kind", "local")
    return str(kind)


Model = Annotated[Annotated[Teacher, Tag("local")] | Annotated[EndpointModel, Tag("endpoint")], Discriminator(_model_kind)]
"""A local model (the default) or an endpoint (`kind: endpoint`)."""


# ---------------------------------------------------------------------------------------------------------- candidates


class Candidates(Section):
    """What is sampled for each prompt: `per_prompt` answers from each model named in `from`.

    Held-out prompts get candidates too: the reward model is measured on their verdicts, and nothing is trained on them.
    """

    per_prompt: int = Field(default=4, gt=0)
    authors: tuple[str, ...] = Field(default=("start",), alias="from", min_length=1)
    temperature: float = Field(default=1.0, gt=0)
    max_new_tokens: int = Field(default=256, gt=0)
    max_prompt_tokens: int = Field(default=512, gt=0)


# -------------------------------------------------------------------------------------------------------------- judges


def _name_or_section(value: Any) -> str:
    return "name" if isinstance(value, str) else "section"


ModelRef = Annotated[Annotated[str, Tag("name")] | Annotated[Model, Tag("section")], Discriminator(_name_or_section)]
"""A model written out, or the name of one: `teacher`, `start`, or a key of `models`."""


class LikelihoodJudge(Section):
    """Grade = the teacher's mean log-probability per token of the response, nats."""

    kind: Literal["likelihood"] = "likelihood"
    model: ModelRef = "teacher"


class PairwiseJudge(Section):
    """Which of two answers is better; asked in both orders unless told otherwise.

    Attributes:
        template: `helpful`, `harmless`, `general`, or the path of a text file with the fields
            `{prompt}`, `{first}` and `{second}`.
    """

    kind: Literal["pairwise"]
    model: ModelRef = "teacher"
    template: str = "general"
    both_orders: bool = True
    max_new_tokens: int = Field(default=64, gt=0)


class RubricJudge(Section):
    """Grade from `lowest` to `highest`: the expected value over the score's tokens where log-probs exist, else the parsed one.

    Attributes:
        template: `rubric`, or the path of a text file with the fields `{prompt}`, `{response}`, `{lowest}`, `{highest}`.
    """

    kind: Literal["rubric"]
    model: ModelRef = "teacher"
    template: str = "rubric"
    lowest: int = 1
    highest: int = 10
    max_new_tokens: int = Field(default=64, gt=0)

    @model_validator(mode="after")
    def _scale_goes_up(self) -> "RubricJudge":
        if self.lowest >= self.highest:
            raise ValueError("'lowest' must be less than 'highest'")
        return self


class FunctionJudge(Section):
    """Grade = your function: `(prompt: str, responses: list[str]) -> list[float]`."""

    kind: Literal["function"]
    function: PluginName


class RewardModelJudge(Section):
    """Grade = the score of a sequence classifier with one label: a Hub name or a local folder."""

    kind: Literal["reward_model"]
    model: str
    revision: str | None = None
    layout: Literal["chat", "transcript", "plain"] = "chat"
    trust_remote_code: bool = False


Judge = Annotated[LikelihoodJudge | PairwiseJudge | RubricJudge | FunctionJudge | RewardModelJudge, Field(discriminator="kind")]


# --------------------------------------------------------------------------------------------------------------- audit


class Audit(Section):
    """How far the judge can be trusted: what is measured of its verdicts before anything is trained on them.

    Attributes:
        labels: what people say of the same answers: a file of preferences or rankings, joined by prompt and text.
    """

    probes: AuditProbes = AuditProbes()
    labels: Source | None = None
    warn: AuditWarn = AuditWarn()
    stop: AuditStop = AuditStop()


# ------------------------------------------------------------------------------------------------------------ rankings


class Rankings(Section):
    """How verdicts become rankings.

    Attributes:
        source: ready-made preferences; candidates and judge are skipped.
        held_out: the share of the ready-made preferences' prompts that only the evaluation sees.
        aggregate: `auto` takes `bradley_terry` for comparisons and `mean_grade` for grades.
        temperature: grades are divided by it, so that their differences are on the logit scale.
        tie_margin: scores closer than this are one score.
        pairs: what goes into `pairs.jsonl`: every strictly ordered pair, or the best against the worst.
    """

    source: Source | None = None
    held_out: float = Field(default=0.1, gt=0, lt=1)
    aggregate: Literal["auto", "win_probability", "bradley_terry", "mean_grade"] = "auto"
    temperature: float = Field(default=1.0, gt=0)
    tie_margin: float = Field(default=0.0, ge=0)
    pairs: Literal["all", "best_worst"] = "all"


# -------------------------------------------------------------------------------------------------------- reward model


class RewardModel(Training):
    """Bradley-Terry on the rankings, over all strictly ordered pairs of a prompt, each weighted 1 / their number.

    Attributes:
        model: the trunk; the start by default.
        labels: `hard` learns the order, `soft` the teacher's probability.
        margin: subtract the (logit-scale) score difference times this from the reward difference, as Llama 2 does.
        centering: weight of the squared sum of a pair's two rewards, as in TRL, which keeps rewards near zero.
    """

    model: LocalModel | None = None
    lora: Lora | None = None
    learning_rate: float = Field(default=1e-5, gt=0)
    labels: Literal["hard", "soft"] = "hard"
    margin: float = Field(default=0.0, ge=0)
    centering: float = Field(default=0.01, ge=0)


# ------------------------------------------------------------------------------------------------------------ students


class Dpo(Section):
    """Direct preference optimisation; `loss` also gives IPO and the hinge form (SLiC-HF).

    Attributes:
        labels: `soft` weighs both directions by the teacher's probability.
        label_smoothing: conservative DPO: the share of labels believed to be flipped.
    """

    kind: Literal["dpo"]
    beta: float = Field(default=0.1, gt=0)
    loss: Literal["sigmoid", "ipo", "hinge"] = "sigmoid"
    labels: Literal["hard", "soft"] = "hard"
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)


class Rrhf(Section):
    """Rank responses to align human feedback: hinge on length-normalised log-probs, plus NLL of the best response."""

    kind: Literal["rrhf"]
    sft_weight: float = Field(default=1.0, ge=0)


class Pro(Section):
    """Preference ranking optimisation: list-wise contrast with reward-gap temperatures, plus NLL of the best response."""

    kind: Literal["pro"]
    sft_weight: float = Field(default=0.05, ge=0)


class BestOfN(Section):
    """Imitate the best candidate: the baseline that every other student must beat."""

    kind: Literal["best_of_n"]


Objective = Annotated[Dpo | Rrhf | Pro | BestOfN, Field(discriminator="kind")]

PUBLISHED_LEARNING_RATES = {"dpo": 5e-7, "rrhf": 2e-5, "pro": 5e-6, "best_of_n": 2e-5}


class Student(Training):
    """One way of learning from the rankings. Without `learning_rate`, the one its paper used."""

    objective: Objective

    @model_validator(mode="after")
    def _published_learning_rate(self) -> "Student":
        if "learning_rate" not in self.model_fields_set:  # a before-validator would lose the strictness of JSON
            object.__setattr__(self, "learning_rate", PUBLISHED_LEARNING_RATES[self.objective.kind])
        return self


# ---------------------------------------------------------------------------------------------------------- evaluation


EvaluationJudge = Annotated[
    Annotated[Literal["same"], Tag("name")] | Annotated[Judge, Tag("section")], Discriminator(_name_or_section)
]


class Evaluation(Section):
    """What is measured on held-out prompts, for the start and every student.

    Attributes:
        judge: `same` as labelled the training data, another one, or null.
        truth: a function `(prompt: str, responses: list[str]) -> list[float]` that knows how good an answer is.
        temperature: 1.0 samples from the policy itself, which the KL estimate needs.
        samples_per_prompt: answers per held-out prompt; their figures are averaged per prompt.
        prompts: evaluate no more than this many held-out prompts.
        against_teacher: also compare each student with the teacher's answers.
    """

    judge: EvaluationJudge | None = "same"
    truth: PluginName | None = None
    temperature: float = Field(default=1.0, gt=0)
    samples_per_prompt: int = Field(default=1, gt=0)
    prompts: int | None = Field(default=None, gt=0)
    max_new_tokens: int | None = Field(default=None, gt=0)
    against_teacher: bool = False


# ------------------------------------------------------------------------------------------------------------- runtime


class Runtime(Section):
    """Where and how fast. Nothing here changes the result, so nothing here is hashed.

    Attributes:
        store: the folder of finished work, shared between runs.
        runs: the folder of reports, one folder per run.
        per_device_train_batch_size: prompts per micro-batch; `batch_size` is reached by accumulation.
        per_device_eval_batch_size: prompts per batch when sampling and scoring.
        save_steps: optimiser steps between checkpoints.
        report_to: trackers for transformers' Trainer (`tensorboard`, `wandb`, ...); `metrics.jsonl` is always written.
    """

    store: Path = Path("runs/store")
    runs: Path = Path("runs")
    per_device_train_batch_size: int = Field(default=8, gt=0)
    per_device_eval_batch_size: int = Field(default=32, gt=0)
    gradient_checkpointing: bool = False
    save_steps: int = Field(default=100, gt=0)
    save_total_limit: int = Field(default=2, gt=0)
    logging_steps: int = Field(default=5, gt=0)
    deepspeed: Path | None = None
    report_to: tuple[str, ...] = ()


# ----------------------------------------------------------------------------------------------------------------- run


class RunConfig(Section):
    """A whole run."""

    name: str = Field(pattern=NAME_PATTERN)
    seed: int = Field(default=0, ge=0, lt=2**32)
    prompts: Prompts | None = None
    start: StudentModel | None = None
    sft: Sft | None = None
    teacher: Model | None = None
    models: dict[str, Model] = Field(default={})
    candidates: Candidates = Candidates()
    judge: Judge | None = None
    audit: Audit = Audit()
    rankings: Rankings = Rankings()
    reward_model: RewardModel | None = None
    students: dict[str, Student] = Field(default={})
    evaluation: Evaluation = Evaluation()
    runtime: Runtime = Runtime()

    @property
    def held_out(self) -> float:
        """The share of prompts, by hash, that only the evaluation sees."""
        return self.prompts.held_out if self.prompts is not None else self.rankings.held_out
