"""The whole on one page: which stage feeds which.

    prompts ──> candidates ──> verdicts ──> rankings ──┬──> reward_model ──┬──────────────┐
       │  (start, teacher,    (the judge)   (or ready  │                   v (as a reward)│
       │   other models)       └─> audit     made)     └─────────────> students ──────────┤
       └── held-out prompts ──> answers of start, teacher, students ──> evaluation ──> report

PPO, GRPO and RLOO learn from rewards for their own answers to the training prompts; everything else learns from the rankings. A run
without a judge has no rankings.

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
    ListwiseJudge,
    LocalModel,
    Lora,
    Online,
    PairwiseJudge,
    PanelJudge,
    Ppo,
    Reward,
    RewardModelJudge,
    RubricJudge,
    RunConfig,
    Student,
    WeightedReward,
)
from aligndistill.config_audit import AuditProbes
from aligndistill.config_judges import judge_models, judging_author
from aligndistill.config_yaml import dump_yaml
from aligndistill.plugins import plugin_file
from aligndistill.stages.answers import make_answers
from aligndistill.stages.audit import make_audit
from aligndistill.stages.candidates import make_candidates
from aligndistill.stages.evaluation import ANSWERS, make_evaluation
from aligndistill.stages.models import make_named_model, make_taught_model
from aligndistill.stages.online_students import Watch, make_ppo_student
from aligndistill.stages.open_models import judge_model_input
from aligndistill.stages.prompts import make_prompts
from aligndistill.stages.rankings import make_rankings, make_ready_made_rankings
from aligndistill.stages.report import STUDENT, make_report
from aligndistill.stages.reward_model import make_reward_model
from aligndistill.stages.rewards import RewardPart
from aligndistill.stages.stage import Made, Stage
from aligndistill.stages.students import make_student
from aligndistill.stages.trl_students import make_trl_student
from aligndistill.stages.verdicts import make_verdicts
from aligndistill.store.artifacts import content_fingerprint

SHARED_OUT = {"candidates", "verdicts", "answers", "evaluation"}
"""Stages whose local models write and judge in every process."""


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
    judge_models: dict[int, Stage] = field(default_factory=dict)
    """By the identity of the model's section."""
    after: tuple[Stage, ...] = ()

    def build(self) -> Iterator[Stage]:
        config = self.config
        yield from self._models()
        start = {"start": self.models["start"]} if config.start else {}

        if config.rankings.source is not None:
            ready_made = (config.rankings, config.held_out, self._conversational, _content(config.rankings.source.path))
            rankings = self._stage("rankings", make_ready_made_rankings, ready_made, {})
            yield rankings
            held_out = {"rankings": rankings}
            labelled = {**held_out, "audit": self._audit(held_out)}
            yield labelled["audit"]
        else:
            assert config.prompts is not None, "the config's checks see to that"
            prompts = self._stage("prompts", make_prompts, (config.prompts, _content(config.prompts.source.path)), {})
            yield prompts
            held_out = labelled = {"prompts": prompts}
            if config.judge is not None:
                labelled = self._labelled(prompts, config.judge)
                yield from (stage for name, stage in labelled.items() if name != "prompts")
        ranked = {"rankings": labelled["rankings"]} if "rankings" in labelled else {}

        reward_model: dict[str, Stage] = {}
        if config.reward_model is not None:
            trunk = config.reward_model.model
            trained_on = {**ranked, **({} if trunk else start)}
            settings = (config.reward_model, _content(trunk.model if trunk else None))
            reward_model = {"reward_model": self._stage("reward_model", make_reward_model, settings, trained_on, trains=True)}
            yield reward_model["reward_model"]

        start_answers = {"start": self._answers("start", {**held_out, **start})} if config.students else {}
        students: dict[str, Stage] = {}
        for name, student in with_baseline(config).items():
            if isinstance(student.objective, Online):
                students[name] = self._online_student(name, student, {**start, **held_out}, reward_model, start_answers)
            else:
                learning = (name, student, self._lora)
                students[name] = self._stage(f"student-{name}", make_student, learning, {**start, **ranked}, trains=True)
        yield from start_answers.values()
        yield from students.values()

        evaluation: dict[str, Stage] = {}
        if students:
            others = dict(self._other_answers(students, {**held_out, **start}))
            yield from others.values()
            answers = {**start_answers, **others}
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
            (config.name, with_baseline(config), judge_kind, _result_config(config), store),
            {**labelled, **reward_model, **{STUDENT + name: stage for name, stage in students.items()}, **evaluation},
        )

    def _labelled(self, prompts: Stage, judge: Judge) -> dict[str, Stage]:
        """From prompts to rankings, in order."""
        config = self.config
        writers = {name: self.models[name] for name in config.candidates.authors if name in self.models}
        servers = {name: self._endpoint(name) for name in config.candidates.authors if name not in self.models}
        candidates = self._stage("candidates", make_candidates, (config.candidates, servers), {"prompts": prompts, **writers})
        labelling = {"prompts": prompts, "candidates": candidates}
        judging = (judge, self._judge_endpoint(judge), _judge_content(judge), config.audit.probes)
        verdicts = self._stage("verdicts", make_verdicts, judging, {**labelling, **self._judge_model(judge)})
        labelled = {**labelling, "verdicts": verdicts}
        audit = self._audit(labelled)
        rankings = self._stage("rankings", make_rankings, (config.rankings, self._conversational), labelled)
        return {**labelled, "audit": audit, "rankings": rankings}

    def _online_student(
        self,
        name: str,
        student: Student,
        inputs: Mapping[str, Stage],
        reward_model: Mapping[str, Stage],
        start_answers: Mapping[str, Stage],
    ) -> Stage:
        """A student with its reward sources, and with what it is compared with while it learns."""
        config, objective = self.config, student.objective
        assert isinstance(objective, Online)
        needed = dict(inputs)
        parts = []
        for number, weighted in enumerate(reward_parts(objective.reward)):
            judge = config.judge if weighted.source == "judge" else weighted.source
            if isinstance(judge, str):
                needed |= reward_model
                parts.append(RewardPart(None, {}, "", "", weighted.weight))
            else:
                assert judge is not None, "the config's checks see to that"
                prefix = f"reward {number}: "
                needed |= {prefix + key: stage for key, stage in self._judge_model(judge).items()}
                parts.append(RewardPart(judge, self._judge_endpoint(judge), _judge_content(judge), prefix, weighted.weight))
        watch = None
        is_ppo = isinstance(objective, Ppo)
        if isinstance(objective, Ppo) and objective.evaluate_every is not None:
            judge = config.judge if config.evaluation.judge == "same" else config.evaluation.judge
            assert judge is not None, "the config's checks see to that"
            needed |= {"watch: " + key: stage for key, stage in self._judge_model(judge).items()}
            needed |= {ANSWERS + "start": start_answers["start"]}
            endpoint, content = self._judge_endpoint(judge), _judge_content(judge)
            watch = Watch(judge, endpoint, content, "watch: ", config.evaluation, self._new_tokens)
        begins_as_reward_model = (
            isinstance(objective, Ppo)
            and objective.critic == "separate"
            and config.reward_model is not None
            and config.reward_model.model is None
        )
        if begins_as_reward_model:
            needed |= reward_model
        settings: tuple[Any, ...] = (name, student, self._lora, tuple(parts))
        if is_ppo:
            settings = (*settings, watch, begins_as_reward_model)
        return self._stage(f"student-{name}", make_ppo_student if is_ppo else make_trl_student, settings, needed, trains=True)

    def _stage(
        self, name: str, make: Callable[..., Made], settings: tuple[Any, ...], inputs: Mapping[str, Stage], trains: bool = False
    ) -> Stage:
        together = trains or name.partition("-")[0] in SHARED_OUT
        return Stage(name, make, settings, inputs, self.config.seed, all_processes=together, after=self.after)

    def _audit(self, judged: Mapping[str, Stage]) -> Stage:
        """What is known of the judge. All later stages wait for it, and none is made anew when a limit or a label changes."""
        config = self.config
        truth, labels = config.evaluation.truth, config.audit.labels
        own_author = judging_author(config.judge)
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
        for name, judge in self._judges():
            for asked in judge_models(judge):
                if isinstance(asked.model, LocalModel):
                    stage = self._model(f"{name}-{asked.part}".rstrip("-"), asked.model, getattr(asked.model, "sft", None))
                    self.judge_models[id(asked.model)] = stage
                    yield stage

    @property
    def _lora(self) -> Lora | None:
        """The start's adapters are what its students train."""
        return self.config.start.lora if self.config.start else None

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

    def _judges(self) -> Iterator[tuple[str, Judge | None]]:
        """Every judge's section, with the name of the stages that hold those of its models that are written out in it."""
        yield "judge_model", self.config.judge
        if self.config.evaluation.judge != "same":
            yield "evaluation_judge_model", self.config.evaluation.judge
        for name, student in self.config.students.items():
            if isinstance(student.objective, Online):
                for number, part in enumerate(reward_parts(student.objective.reward)):
                    if not isinstance(part.source, str):
                        yield f"reward_judge_model-{name}-{number}", part.source

    def _judge_model(self, judge: Judge | None) -> dict[str, Stage]:
        """The inputs that hold the judge's local models."""
        inputs = {}
        for asked in judge_models(judge):
            if isinstance(asked.model, LocalModel):
                inputs[judge_model_input(asked.part)] = self.judge_models[id(asked.model)]
            elif isinstance(asked.model, str) and asked.model in self.models:
                inputs[judge_model_input(asked.part)] = self.models[asked.model]
        return inputs

    def _judge_endpoint(self, judge: Judge | None) -> dict[str, EndpointModel]:
        """The judge's servers, by the name of the input that a local model in their place would be."""
        servers = {}
        for asked in judge_models(judge):
            if isinstance(asked.model, EndpointModel):
                servers[judge_model_input(asked.part)] = asked.model
            elif isinstance(asked.model, str) and asked.model not in self.models:
                servers[judge_model_input(asked.part)] = self._endpoint(asked.model)
        return servers

    # ------------------------------------------------------------------------------------------------------- answers

    def _answers(self, author: str, inputs: Mapping[str, Stage], endpoint: EndpointModel | None = None) -> Stage:
        """An author's answers to the held-out prompts."""
        config = self.config
        sampling = config.evaluation.model_copy(update={"judge": None, "truth": None, "against_teacher": False})
        values = (author, sampling, config.candidates.max_prompt_tokens, self._new_tokens, endpoint)
        return self._stage(f"answers-{author}", make_answers, values, inputs)

    @property
    def _new_tokens(self) -> int:
        """The most tokens of an answer to a held-out prompt."""
        return self.config.evaluation.max_new_tokens or self.config.candidates.max_new_tokens

    def _other_answers(self, students: Mapping[str, Stage], inputs: Mapping[str, Stage]) -> Iterator[tuple[str, Stage]]:
        """The answers of the teacher and every student."""
        held_out = {name: stage for name, stage in inputs.items() if name != "start"}
        if "teacher" in self.models:
            yield "teacher", self._answers("teacher", {**held_out, "teacher": self.models["teacher"]})
        elif self.config.teacher is not None:
            yield "teacher", self._answers("teacher", held_out, self._endpoint("teacher"))
        for name, student in students.items():
            yield name, self._answers(name, {**inputs, name: student})


def with_baseline(config: RunConfig) -> dict[str, Student]:
    """The students, and best-of-n beside them where nobody asked for it: every other one must beat it. It needs rankings."""
    students = config.students
    has_rankings = config.judge is not None or config.rankings.source is not None
    if not students or not has_rankings or any(isinstance(student.objective, BestOfN) for student in students.values()):
        return dict(students)
    return {"best_of_n": Student(objective=BestOfN(kind="best_of_n")), **students}


def reward_parts(reward: Reward) -> tuple[WeightedReward, ...]:
    """A reward as a sum of one part or more."""
    return reward if isinstance(reward, tuple) else (WeightedReward(source=reward),)


def _content(path: str | None) -> str:
    """The hash of a local file or folder; nothing for a Hub name, which the revision pins."""
    return content_fingerprint(Path(path).expanduser()) if path and Path(path).expanduser().exists() else ""


def _judge_content(judge: Judge | None) -> str:
    """The hash of the files that a judge is made of, besides its language model: a template, a reward model, a module."""
    match judge:
        case PairwiseJudge() | ListwiseJudge() | RubricJudge():
            return _content(judge.template)
        case PanelJudge():
            return " ".join(_judge_content(member.judge) for member in judge.members.values())
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
    return dump_yaml(config.model_dump(mode="json", by_alias=True, exclude={"budget", "runtime"}))
