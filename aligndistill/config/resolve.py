"""Resolves a config: references such as `judge: same` and inline models are replaced by what they refer to."""

from collections.abc import Mapping
from typing import Any

from aligndistill.config.judges import Judge, Listwise, Pairwise, Panel
from aligndistill.config.labels import Labelled, StartSft
from aligndistill.config.models import EndpointModel, LocalModel, Model
from aligndistill.config.objectives import Rewarded, WeightedReward
from aligndistill.config.offline_objectives import BestOfN, Kto
from aligndistill.config.run import Rankings, RunConfig
from aligndistill.config.schema import with_named_models
from aligndistill.config.students import RewardTraining, Student


def resolved(config: RunConfig) -> RunConfig:
    """The config as `pipeline.py` reads it.

    - Inline models of judges become models of the run, named after their place (`judge`, `evaluation_judge`, `second_judge`,
      `NAME_reward`, `prompts_filter`, followed by a panel member's name or a reward's number); equal ones become one model.
    - `evaluation.judge: same` and `reward: judge` become the judge itself, and so does the judge of labels without one.
    - Revisions of labels use the labels' domain if they have none.
    - The margin of KTO's `split: margin` becomes `rankings.tie_margin` if none is given.
    - `reward_model.labels: auto` becomes `soft` where the verdicts are probabilities, and `hard` elsewhere.
    - With `seeds`, every student becomes one for each of them, `dpo-s0` and so on.
    - A best-of-n student is added as the baseline if there is none and the run has rankings.
    """
    named: dict[str, Any] = dict(config.named_models)
    judge: Judge | None = with_named_models(config.judge, "judge", named) if config.judge is not None else None
    own = config.evaluation.judge
    evaluating = judge if own == "same" or own is None else with_named_models(own, "evaluation_judge", named)
    evaluation = config.evaluation.model_copy(update={"judge": evaluating if own is not None else None})
    tie_margin = config.rankings.tie_margin
    students = {name: _student(one, name, judge, named, tie_margin) for name, one in with_baseline(config).items()}
    candidates = with_named_models(config.candidates, "candidates", named)
    sft = _labels(config.sft, judge, named) if config.sft is not None else None
    audit = with_named_models(config.audit, "second_judge", named)
    filtered = {
        name: _with_named_filters(section, f"{name}_filter", named)
        for name, section in (("prompts", config.prompts), ("sft", sft), ("rankings", config.rankings))
    }
    if config.seeds:
        students = {f"{n}-s{seed}": one.model_copy(update={"seed": seed}) for n, one in students.items() for seed in config.seeds}
    models: dict[str, Model] = {name: model for name, model in named.items() if name not in ("start", "teacher")}
    changed = {"judge": judge, "evaluation": evaluation, "students": students, "models": models, "candidates": candidates}
    learned = {"reward_model": _reward_model(config, judge, named)}
    return config.model_copy(update={**changed, **filtered, **learned, "audit": audit})


def _reward_model(config: RunConfig, judge: Judge | None, models: Mapping[str, Any]) -> RewardTraining | None:
    if config.reward_model is None or config.reward_model.labels != "auto":
        return config.reward_model
    labels = "soft" if verdicts_are_probabilities(judge, config.rankings, models) else "hard"
    return config.reward_model.model_copy(update={"labels": labels})


def verdicts_are_probabilities(judge: Judge | None, rankings: Rankings, models: Mapping[str, Any]) -> bool:
    """Whether rankings are made from probabilities that one answer is better than another.

    They are for a panel, and for a judge that compares by the log-probabilities of its labels or by several replies; of ready-made
    rankings, for `scores: probabilities`. Grades are none: the scale of their differences is `rankings.temperature`, a guess.

    Args:
        judge: of which the rankings are made; without one they are ready-made.
        models: those that the judge names. A server is taken to give log-probabilities: only its answers show whether it does.
    """
    if rankings.source is not None:
        return rankings.scores == "probabilities"
    match judge:
        case Panel():
            return True
        case Pairwise():
            model = models.get(judge.model) if isinstance(judge.model, str) else judge.model
            thinks = not isinstance(model, LocalModel | EndpointModel) or model.thinking == "on"
            return judge.samples > 1 or not (judge.reasoning or thinks)
        case Listwise():
            return judge.samples > 1
    return False


def _labels(sft: StartSft, judge: Judge | None, named: dict[str, Any]) -> StartSft:
    label = sft.label
    if label is None:
        return sft
    if label.keep == "judge" and label.judge is None:
        label = label.model_copy(update={"judge": judge})
    if label.revise is not None and label.revise.domain is None:
        label = label.model_copy(update={"revise": label.revise.model_copy(update={"domain": label.domain})})
    return sft.model_copy(update={"demonstrations": Labelled(label=with_named_models(label, "label", named))})


def _with_named_filters(section: Any, name: str, named: dict[str, Any]) -> Any:
    """A section of data, with the inline models of its filters named after it."""
    filters = section.filters if section is not None else None
    return section if filters is None else section.model_copy(update={"filters": with_named_models(filters, name, named)})


def with_baseline(config: RunConfig) -> dict[str, Student]:
    """The students of the report, including the best-of-n baseline."""
    students = config.students
    if not students or not config.has_rankings or any(isinstance(one.objective, BestOfN) for one in students.values()):
        return dict(students)
    baseline = Student(objective=BestOfN(kind="best_of_n"))
    return {"best_of_n": baseline.for_adapters() if config.trains_adapters else baseline, **students}


def _student(student: Student, name: str, judge: Judge | None, named: dict[str, Any], tie_margin: float) -> Student:
    objective = student.objective
    if isinstance(objective, Kto) and objective.split == "margin" and objective.margin is None:
        return student.model_copy(update={"objective": objective.model_copy(update={"margin": tie_margin})})
    if not isinstance(objective, Rewarded):
        return student
    parts = []
    for number, part in enumerate(objective.rewards):
        source = judge if part.source == "judge" else part.source
        if source is not None and not isinstance(source, str):
            place = f"{name}_reward-{number}" if len(objective.rewards) > 1 else f"{name}_reward"
            source = with_named_models(source, place, named)
        parts.append(WeightedReward.model_construct(source=source, weight=part.weight, pessimism=part.pessimism))
    return student.model_copy(update={"objective": objective.model_copy(update={"reward": tuple(parts)})})
