"""The schema of a run: what a YAML file may say. Frozen, typed, and it refuses what it does not know.

A section's settings decide the result and are hashed into the names of what it makes. `runtime` alone stays out of the hash:
it decides where and how fast. Keys that users know from Hugging Face keep their names there and here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from aligndistill.config.audit import Audit, AuditSettings
from aligndistill.config.data import Prompts, Source
from aligndistill.config.judges import Judge
from aligndistill.config.models import EndpointModel, LocalModel, Model, StudentModel
from aligndistill.config.schema import models_of
from aligndistill.config.section import NAME_PATTERN, PluginName, Section, name_or_section
from aligndistill.config.students import RewardTraining, Student
from aligndistill.config.training import Sft


class Price(Section):
    """What a server's model costs, US dollars per million tokens."""

    prompt: float = Field(ge=0)
    completion: float = Field(ge=0)

    def usd(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Of so many tokens."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


class Budget(Section):
    """The most that a run may spend on servers, over all its resumptions. It stops there, and goes on when given more.

    Attributes:
        requests: HTTP requests, repeated tries among them.
        tokens: of prompts and answers.
        usd: by `prices`.
        prices: by the model's `name` on its server.
    """

    requests: int | None = Field(default=None, ge=0)
    tokens: int | None = Field(default=None, ge=0)
    usd: float | None = Field(default=None, ge=0)
    prices: dict[str, Price] = Field(default={})


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


# ---------------------------------------------------------------------------------------------------------- evaluation


EvaluationJudge = Annotated[
    Annotated[Literal["same"], Tag("name")] | Annotated[Judge, Tag("section")], Discriminator(name_or_section)
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
        max_tokens_per_batch: most tokens in a micro-batch of training, padding included. Fewer prompts than
            `per_device_train_batch_size` go into one where they are long; `batch_size` stays what it is.
        compile_decoding: compile the step from one sampled token to the next, on a GPU into CUDA graphs. Each shape of batch is
            compiled once, which takes a while: for many answers.
        save_steps: optimiser steps between checkpoints.
        grace_seconds: how long saving may take after Ctrl-C or SIGTERM. Launchers kill what is still there after 30.
        silence_seconds: how long a process of a launcher may be without a sign of life before the others end the run.
        collective_minutes: how long processes wait for each other in one exchange.
        launcher: `deepspeed` starts DeepSpeed's launcher for the stages that several processes can share.
        processes: how many it starts on this machine; one per GPU by default.
        report_to: trackers for transformers' Trainer (`tensorboard`, `wandb`, ...); `metrics.jsonl` is always written.
    """

    store: Path = Path("runs/store")
    runs: Path = Path("runs")
    per_device_train_batch_size: int = Field(default=8, gt=0)
    per_device_eval_batch_size: int = Field(default=32, gt=0)
    max_tokens_per_batch: int | None = Field(default=None, gt=0)
    gradient_checkpointing: bool = False
    compile_decoding: bool = False
    save_steps: int = Field(default=100, gt=0)
    save_total_limit: int = Field(default=2, gt=0)
    logging_steps: int = Field(default=5, gt=0)
    deepspeed: Path | None = None
    grace_seconds: float = Field(default=25.0, gt=0)
    silence_seconds: float = Field(default=180.0, gt=0)
    collective_minutes: float = Field(default=30.0, gt=0)
    launcher: Literal["deepspeed"] | None = None
    processes: int | None = Field(default=None, gt=0)
    report_to: tuple[str, ...] = ()


# ----------------------------------------------------------------------------------------------------------------- run


@dataclass(frozen=True)
class AnswerSampling:
    """How answers to the held-out prompts are sampled; `prompts` is the most that are answered."""

    prompts: int | None
    samples_per_prompt: int
    temperature: float
    max_prompt_tokens: int
    max_new_tokens: int


@dataclass(frozen=True)
class Round:
    """One pass from candidates to students. A config without rounds has one.

    Attributes:
        name: its number.
        suffix: behind the names of its stages; empty where it is the only one.
        roles: which model, or `student` for the one promoted by the round before, is the `start` and which the `reference`.
        promotes: the student that the next round begins with.
        compared: roles that answer the held-out prompts beside the students.
    """

    name: str
    suffix: str
    roles: Mapping[str, str]
    promotes: str | None
    compared: tuple[str, ...]

    def of(self, stage: str) -> str:
        """The name of a stage in this round."""
        return stage + self.suffix


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
    reward_model: RewardTraining | None = None
    students: dict[str, Student] = Field(default={})
    evaluation: Evaluation = Evaluation()
    budget: Budget = Budget()
    runtime: Runtime = Runtime()

    @property
    def held_out(self) -> float:
        """The share of prompts, by hash, that only the evaluation sees."""
        return self.prompts.held_out if self.prompts is not None else self.rankings.held_out

    @property
    def named_models(self) -> dict[str, StudentModel | Model]:
        """The models that a name may stand for."""
        named = {"start": self.start, "teacher": self.teacher, **self.models}
        return {name: model for name, model in named.items() if model is not None}

    @property
    def local_models(self) -> dict[str, LocalModel]:
        """Those that run here."""
        return {name: model for name, model in self.named_models.items() if isinstance(model, LocalModel)}

    @property
    def endpoints(self) -> dict[str, EndpointModel]:
        """Those behind a server."""
        return {name: model for name, model in self.named_models.items() if isinstance(model, EndpointModel)}

    @property
    def has_rankings(self) -> bool:
        """Whether there is anything that offline objectives can learn from."""
        return self.judge is not None or self.rankings.source is not None

    @property
    def conversational(self) -> bool:
        """Whether pairs.jsonl holds message lists: yes, unless the student has no turns."""
        return self.start is None or self.start.layout == "chat"

    @property
    def audit_settings(self) -> AuditSettings:
        """What the verdicts are measured by. The author whose model is the judge is told if that is one alone."""
        judges, audit = models_of(self.judge), self.audit
        own_author = judges[0] if len(judges) == 1 else None
        return AuditSettings(
            labels=audit.labels, warn=audit.warn, stop=audit.stop, truth=self.evaluation.truth, own_author=own_author
        )

    @property
    def answer_sampling(self) -> AnswerSampling:
        """How the evaluation's answers are sampled."""
        evaluation, candidates = self.evaluation, self.candidates
        return AnswerSampling(
            evaluation.prompts,
            evaluation.samples_per_prompt,
            evaluation.temperature,
            candidates.max_prompt_tokens,
            evaluation.max_new_tokens or candidates.max_new_tokens,
        )

    @property
    def rounds(self) -> tuple[Round, ...]:
        """The passes from candidates to students, in order."""
        roles = {"start": "start", "reference": "start"} if self.start is not None else {}
        compared = tuple(role for role in ("start", "teacher") if role in self.named_models)
        return (Round("1", "", roles, None, compared),)
