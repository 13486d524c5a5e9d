"""The schema of a run's YAML file. Sections are immutable and typed; unknown keys are errors.

The settings of a section determine its results and are hashed into the names of the stage folders. `runtime` is the exception:
it sets where and how fast a run executes and is not hashed. Keys that also exist in Hugging Face libraries have the same names.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from aligndistill.config.audit import Audit, AuditSettings
from aligndistill.config.budget import Budget, Price
from aligndistill.config.candidates import Candidates
from aligndistill.config.card import Card
from aligndistill.config.data import Source
from aligndistill.config.filters import FilteredPrompts, Filters
from aligndistill.config.judges import Judge
from aligndistill.config.labels import StartSft
from aligndistill.config.models import EndpointModel, FunctionModel, LocalModel, Model, OwnStart, StudentModel
from aligndistill.config.offline_objectives import BestOfN, Offline
from aligndistill.config.path_fields import HomePath
from aligndistill.config.rounds import Round, Rounds, unrolled
from aligndistill.config.schema import KeyPath, models_of
from aligndistill.config.section import NAME_PATTERN, HashedIfSet, NotHashed, PluginName, Section, name_or_section
from aligndistill.config.students import RewardTraining, Student
from aligndistill.config.training import Training

# ------------------------------------------------------------------------------------------------------------ rankings


class Rankings(Section):
    """How verdicts are converted to rankings.

    Attributes:
        source: existing preference data; no candidates are sampled and no judge is called.
        filters: which rows of `source` are kept.
        held_out: the share of the prompts of `source` that is used for evaluation only.
        aggregate: `auto` uses `bradley_terry` for comparisons and `mean_grade` for grades.
        scores: what the scores of `source` are: `logits`, whose differences are on the logit scale, or `probabilities` of beating a
            common opponent, which are converted to log-odds.
        temperature: grades are divided by this, so that their differences are on the logit scale.
        tie_margin: scores closer than this are tied.
        pairs: which pairs are written to `pairs.jsonl`: every strictly ordered pair, or only the best against the worst.
    """

    source: Source | None = None
    filters: Annotated[Filters | None, HashedIfSet] = None
    held_out: float = Field(default=0.1, gt=0, lt=1)
    scores: Annotated[Literal["logits", "probabilities"], HashedIfSet] = "logits"
    aggregate: Literal["auto", "win_probability", "bradley_terry", "mean_grade"] = "auto"
    temperature: float = Field(default=1.0, gt=0)
    tie_margin: float = Field(default=0.0, ge=0)
    pairs: Literal["all", "best_worst"] = "all"


# ---------------------------------------------------------------------------------------------------------- evaluation


EvaluationJudge = Annotated[
    Annotated[Literal["same"], Tag("name")] | Annotated[Judge, Tag("section")], Discriminator(name_or_section)
]


class Evaluation(Section):
    """Evaluation on held-out prompts, for the start and every student.

    Attributes:
        judge: `same` for the judge that labelled the training data, another judge, or null for none.
        truth: a ground-truth scorer, a function `(prompt: str, responses: list[str]) -> list[float]` that gives one finite number
            per response.
        temperature: 1.0 samples from the policy itself, which the KL estimate needs.
        samples_per_prompt: answers per held-out prompt; metrics are averaged per prompt.
        prompts: evaluate at most this many held-out prompts.
        against_teacher: also compare each student with the teacher's answers.
        length_control: also estimate the win rate over the start between answers of equal length, and rank students by it.
        fidelity: also measure how closely students follow the teacher, token by token. It must be a local model with the start's
            tokenizer.
        quantized: also measure a copy of each student whose linear layers are in this many bits, and how closely it follows the
            student.
        style_control: also estimate it between answers of equal length and equal style: headers, lists and bold text.
    """

    judge: EvaluationJudge | None = "same"
    truth: PluginName | None = None
    temperature: float = Field(default=1.0, gt=0)
    samples_per_prompt: int = Field(default=1, gt=0)
    prompts: int | None = Field(default=None, gt=0)
    max_new_tokens: int | None = Field(default=None, gt=0)
    against_teacher: bool = False
    length_control: Annotated[bool, HashedIfSet] = True
    style_control: Annotated[bool, HashedIfSet] = False
    fidelity: Annotated[bool, NotHashed] = False
    quantized: Annotated[Literal["int8"] | None, NotHashed] = None


# ------------------------------------------------------------------------------------------------------------- runtime


ZeroName = Literal["zero0", "zero1", "zero2", "zero3", "zero2_offload", "zero3_offload"]
"""DeepSpeed's configs by name."""


class Runtime(Section):
    """Where and how fast a run executes. These settings do not change results and are not hashed.

    Attributes:
        store: the folder of finished stages, shared between runs.
        runs: the folder of reports, with one folder per run.
        per_device_train_batch_size: prompts per micro-batch; `batch_size` is reached by gradient accumulation.
        per_device_eval_batch_size: prompts per batch when sampling and scoring.
        max_tokens_per_batch: the most tokens in a training micro-batch, including padding. Micro-batches of long prompts have
            fewer than `per_device_train_batch_size`; `batch_size` is unchanged.
        compile_decoding: compile the decoding step, on a GPU to CUDA graphs. Each batch shape is compiled once, which takes a
            while: worthwhile for many answers.
        deterministic: use deterministic kernels on GPUs, which are slower; CPUs are deterministic anyway. An operation without
            such a kernel in torch ends the run.
        save_steps: optimiser steps between checkpoints.
        grace_seconds: how long saving may take after Ctrl-C or SIGTERM. Launchers kill processes after 30 s.
        heartbeat_timeout_seconds: how long a launched process may be without a heartbeat before the others end the run.
        collective_minutes: the timeout of one collective operation between processes.
        deepspeed: a name of `ZeroName`, or a file with DeepSpeed's config; its `auto` values are filled in.
        launcher: `deepspeed` uses DeepSpeed's launcher for the stages that can run in several processes.
        processes: how many processes it starts on this machine; one per GPU by default.
        report_to: trackers for transformers' Trainer (`tensorboard`, `wandb`, ...); `metrics.jsonl` is always written.
    """

    store: HomePath = Path("runs/store")
    runs: HomePath = Path("runs")
    per_device_train_batch_size: int = Field(default=8, gt=0)
    per_device_eval_batch_size: int = Field(default=32, gt=0)
    max_tokens_per_batch: int | None = Field(default=None, gt=0)
    gradient_checkpointing: bool = False
    compile_decoding: bool = False
    deterministic: bool = False
    save_steps: int = Field(default=100, gt=0)
    save_total_limit: int = Field(default=2, gt=0)
    logging_steps: int = Field(default=5, gt=0)
    deepspeed: ZeroName | HomePath | None = None
    grace_seconds: float = Field(default=25.0, gt=0)
    heartbeat_timeout_seconds: float = Field(default=180.0, gt=0)
    collective_minutes: float = Field(default=30.0, gt=0)
    launcher: Literal["deepspeed"] | None = None
    processes: int | None = Field(default=None, gt=0)
    report_to: tuple[str, ...] = ()


# ----------------------------------------------------------------------------------------------------------------- run


@dataclass(frozen=True)
class AnswerSampling:
    """How answers to the held-out prompts are sampled; `prompts` is the maximum number of prompts."""

    prompts: int | None
    samples_per_prompt: int
    temperature: float
    max_prompt_tokens: int
    max_new_tokens: int


class RunConfig(Section):
    """The config of a whole run.

    Attributes:
        seeds: train the reward model and every student with each of these; the data is that of `seed`.
    """

    name: str = Field(pattern=NAME_PATTERN)
    seed: int = Field(default=0, ge=0, lt=2**32)
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] = ()
    prompts: FilteredPrompts | None = None
    start: StudentModel | None = None
    sft: StartSft | None = None
    teacher: Model | None = None
    models: dict[str, Model] = Field(default={})
    candidates: Candidates = Candidates()
    judge: Judge | None = None
    audit: Audit = Audit()
    rankings: Rankings = Rankings()
    reward_model: RewardTraining | None = None
    students: dict[str, Student] = Field(default={})
    rounds: Rounds | None = None
    evaluation: Evaluation = Evaluation()
    budget: Budget = Budget()
    card: Annotated[Card | None, NotHashed] = Field(default=None, exclude_if=lambda card: card is None)
    runtime: Runtime = Runtime()

    @model_validator(mode="after")
    def _adapter_learning_rates(self) -> "RunConfig":
        """Where adapters of the start are trained, sections without a learning rate get that of adapters."""
        adapted = self.adapter_sections
        rated = {name: one.for_adapters() if ("students", name) in adapted else one for name, one in self.students.items()}
        object.__setattr__(self, "students", rated)
        if self.sft is not None and ("sft",) in adapted:
            object.__setattr__(self, "sft", self.sft.for_adapters())
        return self

    @property
    def held_out(self) -> float:
        """The share of prompts, chosen by hash, that is used for evaluation only."""
        return self.prompts.held_out if self.prompts is not None else self.rankings.held_out

    @property
    def named_models(self) -> dict[str, StudentModel | Model]:
        """All models of the run, by name; that of a student's own start is `start-NAME`."""
        named = {"start": self.start, "teacher": self.teacher, **self.own_starts, **self.models}
        return {name: model for name, model in named.items() if model is not None}

    @property
    def own_starts(self) -> dict[str, OwnStart]:
        """The starts that are one student's alone, by their names among the models."""
        return {self.own_start(name): one.start for name, one in self.students.items() if one.start is not None}

    def own_start(self, student: str) -> str:
        """The name that the start of a student has among the models, if it is not the run's."""
        return f"start-{self.without_seed(student)}"

    def without_seed(self, student: str) -> str:
        """The name of a student in the config: with `seeds`, `resolved` gives them names such as `dpo-s1`."""
        return re.sub(r"-s\d+$", "", student) if self.seeds else student

    def seen_by(self, student: str) -> "RunConfig":
        """The config with the student's own start in the place of the run's, if it has one."""
        own = self.students[student].start
        return self if own is None else self.model_copy(update={"start": own, "sft": own.sft})

    @property
    def local_models(self) -> dict[str, LocalModel]:
        """The models that run locally."""
        return {name: model for name, model in self.named_models.items() if isinstance(model, LocalModel)}

    @property
    def endpoints(self) -> dict[str, EndpointModel]:
        """The models behind a server."""
        return {name: model for name, model in self.named_models.items() if isinstance(model, EndpointModel)}

    def prices_of(self, names: Iterable[str]) -> dict[str, Price]:
        """The prices of these models, by their names in the config; of those that have one."""
        served = {name: self.endpoints[name].name for name in names if name in self.endpoints}
        return {name: self.budget.prices[model] for name, model in served.items() if model in self.budget.prices}

    @property
    def functions(self) -> dict[str, FunctionModel]:
        """The models that are functions."""
        return {name: model for name, model in self.named_models.items() if isinstance(model, FunctionModel)}

    @property
    def trains_adapters(self) -> bool:
        """Whether students are adapters of the start."""
        return self.start is not None and self.start.lora is not None

    @property
    def adapter_sections(self) -> dict[KeyPath, Training]:
        """The sections that train adapters, by their keys."""
        found: dict[KeyPath, Training] = {}
        if self.start is not None and self.trains_adapters and self.sft is not None and self.start.from_scratch is None:
            found["sft",] = self.sft  # a new model is trained whole
        for name, student in self.students.items():
            if self.seen_by(name).trains_adapters:
                found["students", name] = student
            if student.start is not None and student.start.sft is not None and student.start.sft_trains_adapters:
                found["students", name, "start", "sft"] = student.start.sft
        if self.reward_model is not None and self.reward_model.lora is not None:
            found[("reward_model",)] = self.reward_model
        return found

    @property
    def has_rankings(self) -> bool:
        """Whether the run has rankings, which offline objectives learn from."""
        return self.judge is not None or self.rankings.source is not None

    @property
    def learns_ties(self) -> bool:
        """Whether the run can learn from tied rankings alone: soft labels can, and for best-of-n each of equal answers is best."""
        objectives = [one.objective for one in self.students.values()]
        learns = [one.learns_ties for one in objectives if isinstance(one, Offline) and not one.best_only]
        if self.reward_model is not None:
            learns.append(self.reward_model.labels == "soft")
        return bool(learns) and all(learns)

    @property
    def conversational(self) -> bool:
        """Whether pairs.jsonl contains message lists: yes, unless the student's layout has no turns."""
        return self.start is None or self.start.layout == "chat"

    @property
    def audit_settings(self) -> AuditSettings:
        """The settings of the audit. `own_author` is set if the judge uses exactly one model."""
        judges, audit = models_of(self.judge), self.audit
        own_author = judges[0] if len(judges) == 1 else None
        return AuditSettings(
            labels=audit.labels, warn=audit.warn, stop=audit.stop, truth=self.evaluation.truth, own_author=own_author
        )

    @property
    def answer_sampling(self) -> AnswerSampling:
        """How answers are sampled for the evaluation."""
        evaluation, candidates = self.evaluation, self.candidates
        return AnswerSampling(
            evaluation.prompts,
            evaluation.samples_per_prompt,
            evaluation.temperature,
            candidates.max_prompt_tokens,
            evaluation.max_new_tokens or candidates.max_new_tokens,
        )

    @property
    def all_rounds(self) -> tuple[Round, ...]:
        """The rounds of the run, in order. Without `rounds` there is one."""
        roles = {"start": "start", "reference": "start"} if self.start is not None else {}
        compared = (*(role for role in ("start", "teacher") if role in self.named_models), *self.own_starts)
        first = Round("1", "", roles, None, compared, tuple(self.students))
        if self.rounds is None:
            return (first,)
        # Best-of-n imitates the best candidates of a round: as a baseline it belongs to the first.
        imitating = {name for name, one in self.students.items() if isinstance(one.objective, BestOfN)}
        return unrolled(
            self.rounds, first, again=[name for name in self.students if name not in imitating - {self.rounds.promotes}]
        )
