"""The whole on one page: which stage feeds which.

    prompts ──> candidates ──> verdicts ──> rankings ──┬──> reward_model ──┐
       │  (start, teacher,    (the judge)   (or ready  │                   │
       │   other models)       └─> audit     made)     └──> students ──────┤
       └── held-out prompts ──> answers of start, teacher, students ──> evaluation ──> report

Stages are values. Building them runs nothing; a stage's fingerprint says what it depends on, and the store says what is done.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aligndistill.config import (
    BestOfN,
    EndpointModel,
    FunctionJudge,
    Judge,
    LikelihoodJudge,
    LocalModel,
    PairwiseJudge,
    RewardModelJudge,
    RubricJudge,
    RunConfig,
    Student,
)
from aligndistill.config_audit import AuditProbes
from aligndistill.config_yaml import dump_yaml
from aligndistill.plugins import plugin_file
from aligndistill.stages.answers import make_answers
from aligndistill.stages.audit import make_audit
from aligndistill.stages.candidates import make_candidates
from aligndistill.stages.evaluation import ANSWERS, make_evaluation
from aligndistill.stages.models import make_named_model, make_taught_model
from aligndistill.stages.open_models import JUDGE_MODEL
from aligndistill.stages.prompts import make_prompts
from aligndistill.stages.rankings import make_rankings, make_ready_made_rankings
from aligndistill.stages.report import STUDENT, make_report
from aligndistill.stages.reward_model import make_reward_model
from aligndistill.stages.stage import Made, Stage
from aligndistill.stages.students import make_student
from aligndistill.stages.verdicts import make_verdicts
from aligndistill.store.artifacts import content_fingerprint


@dataclass(frozen=True)
class Pipeline:
    """The stages of a run, in an order in which they can be made; `report` is the last."""

    stages: tuple[Stage, ...]

    def upstream_of(self, name: str) -> tuple[Stage, ...]:
        """The stages that one stage needs, and it, in order.

        Raises:
            KeyError: no stage is called so.
        """
        wanted: set[str] = set()
        by_name = {stage.name: stage for stage in self.stages}

        def add(stage: Stage) -> None:
            wanted.add(stage.name)
            for needed in (*stage.inputs.values(), *stage.after):
                add(needed)

        add(by_name[name])
        return tuple(stage for stage in self.stages if stage.name in wanted)


def pipeline(config: RunConfig) -> Pipeline:
    """Which stage feeds which."""
    return Pipeline(tuple(_Builder(config).build()))


@dataclass
class _Builder:
    config: RunConfig
    models: dict[str, Stage] = field(default_factory=dict)
    judge_models: dict[str, Stage] = field(default_factory=dict)
    after: tuple[Stage, ...] = ()

    def build(self) -> Iterator[Stage]:
        config = self.config
        yield from self._models()
        start = {"start": self.models["start"]} if config.start else {}

        if config.rankings.source is None:
            assert config.prompts is not None and config.judge is not None, "the config's checks see to that"
            prompts = self._stage("prompts", make_prompts, (config.prompts, _content(config.prompts.source.path)), {})
            yield prompts
            writers = {name: self.models[name] for name in config.candidates.authors if name in self.models}
            servers = {name: self._endpoint(name) for name in config.candidates.authors if name not in self.models}
            candidates = self._stage("candidates", make_candidates, (config.candidates, servers), {"prompts": prompts, **writers})
            yield candidates
            labelling = {"prompts": prompts, "candidates": candidates}
            judging = (config.judge, self._judge_endpoint(config.judge), _judge_content(config.judge), config.audit.probes)
            verdicts = self._stage("verdicts", make_verdicts, judging, {**labelling, **self._judge_model(config.judge)})
            yield verdicts
            labelled = {**labelling, "verdicts": verdicts}
            audit = self._audit(labelled)
            yield audit
            rankings = self._stage("rankings", make_rankings, (config.rankings, self._conversational), labelled)
            yield rankings
            held_out = {"prompts": prompts}
            labelled = {**labelled, "rankings": rankings}
        else:
            ready_made = (config.rankings, config.held_out, self._conversational, _content(config.rankings.source.path))
            rankings = self._stage("rankings", make_ready_made_rankings, ready_made, {})
            yield rankings
            held_out = labelled = {"rankings": rankings}
            audit = self._audit(labelled)
            yield audit

        reward_model: dict[str, Stage] = {}
        if config.reward_model is not None:
            trunk = config.reward_model.model
            trained_on = {"rankings": rankings, **({} if trunk else start)}
            settings = (config.reward_model, _content(trunk.model if trunk else None))
            reward_model = {"reward_model": self._stage("reward_model", make_reward_model, settings, trained_on, trains=True)}
            yield reward_model["reward_model"]

        lora = config.start.lora if config.start else None
        students = {
            name: self._stage(f"student-{name}", make_student, (name, student, lora), {**start, "rankings": rankings}, trains=True)
            for name, student in with_baseline(config.students).items()
        }
        yield from students.values()

        evaluation: dict[str, Stage] = {}
        if students:
            answers = dict(self._answers(students, held_out))
            yield from answers.values()
            judge = config.judge if config.evaluation.judge == "same" else config.evaluation.judge
            measured = {**held_out, **{ANSWERS + name: stage for name, stage in answers.items()}}
            measured |= {**reward_model, **self._judge_model(judge)}
            contents = (_judge_content(judge), _code(config.evaluation.truth))
            judged_by = (config.evaluation, judge, self._judge_endpoint(judge), contents)
            evaluation = {"evaluation": self._stage("evaluation", make_evaluation, judged_by, measured)}
            yield evaluation["evaluation"]

        judge_kind = config.judge.kind if config.judge else None
        store = str(config.runtime.store.absolute())
        yield self._stage(
            "report",
            make_report,
            (config.name, with_baseline(config.students), judge_kind, _result_config(config), store),
            {
                **labelled,
                "audit": audit,
                **reward_model,
                **{STUDENT + name: stage for name, stage in students.items()},
                **evaluation,
            },
        )

    def _stage(
        self, name: str, make: Callable[..., Made], settings: tuple[Any, ...], inputs: Mapping[str, Stage], trains: bool = False
    ) -> Stage:
        return Stage(name, make, settings, inputs, self.config.seed, all_processes=trains, after=self.after)

    def _audit(self, judged: Mapping[str, Stage]) -> Stage:
        """What is known of the judge. All later stages wait for it, and none is made anew when a limit or a label changes."""
        config = self.config
        truth, labels = config.evaluation.truth, config.audit.labels
        model = getattr(config.judge, "model", None)
        own_author = model if isinstance(model, str) else None
        contents = (_content(labels.path if labels else None), _code(truth))
        # The probes have made the verdicts what they are; what is read here is the rest.
        settings = (config.audit.model_copy(update={"probes": AuditProbes()}), truth, own_author, contents)
        audit = self._stage("audit", make_audit, settings, judged)
        self.after = (audit,)
        return audit

    # --------------------------------------------------------------------------------------------------------- models

    def _models(self) -> Iterator[Stage]:
        """The local models that are named in the config: the start, the teacher, and the others."""
        config = self.config
        if config.start is not None:
            sft = config.sft
            self.models["start"] = self._model("start", config.start, sft)
            yield self.models["start"]
        others = {"teacher": config.teacher, **config.models}
        for name, model in others.items():
            if model is not None and not isinstance(model, EndpointModel):
                self.models[name] = self._model(name if name == "teacher" else f"model-{name}", model, model.sft)
                yield self.models[name]
        for judge in (config.judge, config.evaluation.judge):
            model = getattr(judge, "model", None)
            if isinstance(model, LocalModel):
                name = self._judge_model_name(judge)
                self.judge_models[name] = self._model(name, model, getattr(model, "sft", None))
                yield self.judge_models[name]

    def _model(self, name: str, model: LocalModel, sft: Any) -> Stage:
        if sft is None:
            return self._stage(name, make_named_model, (model, _content(model.model)), {})
        contents = (_content(sft.demonstrations.path), _content(model.model))
        lora = getattr(model, "lora", None)
        return self._stage(name, make_taught_model, (model, lora, sft, self.config.held_out, contents), {}, trains=True)

    @property
    def _conversational(self) -> bool:
        """Whether pairs.jsonl holds message lists: yes, unless the student has no turns."""
        return self.config.start is None or self.config.start.layout == "chat"

    def _endpoint(self, name: str) -> EndpointModel:
        model = self.config.teacher if name == "teacher" else self.config.models[name]
        assert isinstance(model, EndpointModel)
        return model

    # --------------------------------------------------------------------------------------------------------- judges

    def _judge_model(self, judge: Judge | None) -> dict[str, Stage]:
        """The input that holds the judge's local model, if it has one."""
        if not isinstance(judge, LikelihoodJudge | PairwiseJudge | RubricJudge):
            return {}
        if isinstance(judge.model, str):
            return {JUDGE_MODEL: self.models[judge.model]} if judge.model in self.models else {}
        return {} if isinstance(judge.model, EndpointModel) else {JUDGE_MODEL: self.judge_models[self._judge_model_name(judge)]}

    def _judge_model_name(self, judge: Any) -> str:
        """The stage of a model that is written out in a judge's section."""
        return "evaluation_judge_model" if judge is self.config.evaluation.judge else "judge_model"

    def _judge_endpoint(self, judge: Judge | None) -> EndpointModel | None:
        """The judge's server, if it has one."""
        if not isinstance(judge, LikelihoodJudge | PairwiseJudge | RubricJudge):
            return None
        if isinstance(judge.model, EndpointModel):
            return judge.model
        return self._endpoint(judge.model) if isinstance(judge.model, str) and judge.model not in self.models else None

    # ------------------------------------------------------------------------------------------------------- answers

    def _answers(self, students: Mapping[str, Stage], held_out: Mapping[str, Stage]) -> Iterator[tuple[str, Stage]]:
        """The answers of the start, the teacher and every student to the held-out prompts."""
        config = self.config
        settings = config.evaluation
        new_tokens = settings.max_new_tokens or config.candidates.max_new_tokens
        sampling = settings.model_copy(update={"judge": None, "truth": None, "against_teacher": False})

        def answers(author: str, inputs: Mapping[str, Stage], endpoint: EndpointModel | None = None) -> tuple[str, Stage]:
            values = (author, sampling, config.candidates.max_prompt_tokens, new_tokens, endpoint)
            return author, self._stage(f"answers-{author}", make_answers, values, {**held_out, **inputs})

        start = self.models["start"]
        yield answers("start", {"start": start})
        if "teacher" in self.models:
            yield answers("teacher", {"teacher": self.models["teacher"]})
        elif config.teacher is not None:
            yield answers("teacher", {}, self._endpoint("teacher"))
        for name, student in students.items():
            yield answers(name, {"start": start, name: student})


def with_baseline(students: Mapping[str, Student]) -> dict[str, Student]:
    """The students, and best-of-n beside them where nobody asked for it: every other one must beat it."""
    if not students or any(isinstance(student.objective, BestOfN) for student in students.values()):
        return dict(students)
    return {"best_of_n": Student(objective=BestOfN(kind="best_of_n")), **students}


def _content(path: str | None) -> str:
    """The hash of a local file or folder; nothing for a Hub name, which the revision pins."""
    return content_fingerprint(Path(path).expanduser()) if path and Path(path).expanduser().exists() else ""


def _judge_content(judge: Judge | None) -> str:
    """The hash of the files that a judge is made of, besides its language model: a template, a reward model, a module."""
    match judge:
        case PairwiseJudge() | RubricJudge():
            return _content(judge.template)
        case RewardModelJudge():
            return _content(judge.model)
        case FunctionJudge():
            return _code(judge.function)
    return ""


def _code(plugin: str | None) -> str:
    """The hash of a plug-in's module, so that a changed function is asked again. What that imports is not looked at."""
    file = plugin_file(plugin) if plugin else None
    return _content(str(file)) if file else ""


def _result_config(config: RunConfig) -> str:
    """What the page shows of the config: all that decides the result."""
    return dump_yaml(config.model_dump(mode="json", by_alias=True, exclude={"runtime"}))
