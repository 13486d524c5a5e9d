"""Rules for students that learn from rewards: where those come from, and a judge for evaluations during training."""

from collections.abc import Iterator

from aligndistill.config.judges import Judge, JudgeSection
from aligndistill.config.objectives import Grpo, Ppo, Rewarded, Rloo, WeightedReward
from aligndistill.config.problems import Problem
from aligndistill.config.run import RunConfig
from aligndistill.config.schema import KeyPath


def judges(config: RunConfig) -> Iterator[tuple[KeyPath, Judge]]:
    """The judges that students have for themselves, with their paths."""
    for path, objective in _rewarded(config):
        for number, part in enumerate(objective.rewards):
            if not isinstance(part.source, str):
                yield _path_of(path, objective, number), part.source


def rewards(config: RunConfig) -> Iterator[Problem]:
    """Every reward of every student, and what the objectives themselves need."""
    yield from _whole_updates(config)
    for path, objective in _rewarded(config):
        for number, part in enumerate(objective.rewards):
            yield from _source(config, part, _path_of(path, objective, number))
            yield from _pessimism(config, part, (*path, "reward", number, "pessimism"))
            judge = config.judge if part.source == "judge" else part.source
            if isinstance(judge, JudgeSection) and judge.compares and objective.samples_per_prompt < 2:
                text = f"a {judge.kind} judge compares the answers to a prompt: set this to 2 or more"
                yield Problem((*path, "samples_per_prompt"), text)
        if isinstance(objective, Ppo):
            yield from _evaluations(config, objective, path)
        elif objective.samples_per_prompt < 2:
            text = f"{objective.kind} compares the answers to a prompt: set this to 2 or more"
            yield Problem((*path, "samples_per_prompt"), text)


def _rewarded(config: RunConfig) -> Iterator[tuple[KeyPath, Ppo | Grpo | Rloo]]:
    for name, student in config.students.items():
        if isinstance(student.objective, Ppo | Grpo | Rloo):
            yield ("students", name, "objective"), student.objective


def _path_of(path: KeyPath, objective: Rewarded, number: int) -> KeyPath:
    return (*path, "reward", *((number, "source") if isinstance(objective.reward, tuple) else ()))


def _source(config: RunConfig, part: WeightedReward, path: KeyPath) -> Iterator[Problem]:
    if part.source == "reward_model" and config.reward_model is None:
        yield Problem(path, "this run has no 'reward_model': add that section, or use another reward")
    elif part.source == "judge" and config.judge is None and not part.pessimism:
        yield Problem(path, "this run has no 'judge': add that section, or give a judge here")


def _whole_updates(config: RunConfig) -> Iterator[Problem]:
    for name, student in config.students.items():
        if not isinstance(student.objective, Ppo):
            continue
        each = student.objective.steps_per_update
        if student.max_steps > 0 and student.max_steps % each:
            text = f"this counts optimiser steps: make it a multiple of {each}, the steps of one update (ppo_epochs * minibatches)"
            yield Problem(("students", name, "max_steps"), text)


def _pessimism(config: RunConfig, part: WeightedReward, path: KeyPath) -> Iterator[Problem]:
    if not part.pessimism:
        return
    if part.source != "reward_model":
        yield Problem(
            path, "this is about the members of the run's reward model: remove it, or set it in a judge of kind reward_model"
        )
    elif config.reward_model is not None and config.reward_model.ensemble < 2:
        text = "one reward model does not disagree with itself: set reward_model.ensemble to 2 or more, or remove this key"
        yield Problem(path, text)


def _evaluations(config: RunConfig, objective: Ppo, path: KeyPath) -> Iterator[Problem]:
    judge = config.judge if config.evaluation.judge == "same" else config.evaluation.judge
    if objective.evaluate_every is not None and judge is None:
        text = "evaluations during training need evaluation.judge: add one, or set this to null"
        yield Problem((*path, "evaluate_every"), text)
