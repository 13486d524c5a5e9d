"""What a run is measured by, and which measures of several runs can therefore not be compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aligndistill.config.resolve import resolved
from aligndistill.config.run import RunConfig
from aligndistill.config.schema import model_uses
from aligndistill.store.stage import hashed

ADDRESS = "base_url"
"""Where a model is served; part of fingerprints, and no part of what it answers."""


@dataclass(frozen=True)
class Yardsticks:
    """What a run is measured by.

    Attributes:
        judge: what decides the verdicts of the evaluation's judge: its settings, with each model that it asks in the place of the
            model's name.
        truth: the function that scores answers.
        reward_model: the fingerprint of its stage; None without one.
    """

    judge: object
    truth: object
    reward_model: str | None


def yardsticks(config: RunConfig, stages: Mapping[str, Path]) -> Yardsticks:
    """The yardsticks of a run with these finished stages."""
    config = resolved(config)
    return Yardsticks(_judge(config, stages), config.evaluation.truth, fingerprint_of(stages, "reward_model"))


def incomparable(runs: Sequence[Yardsticks]) -> dict[str, str]:
    """The measures whose values mean something else in one of the runs, and why."""
    found = {}
    if any(run.judge != runs[0].judge for run in runs):
        found["win"] = "The judges differ: win rates of these runs are not comparable."
    if any(run.truth != runs[0].truth for run in runs):
        found["truth"] = "The truth functions differ: the truth of these runs is not comparable."
    if any(run.reward_model != runs[0].reward_model for run in runs):
        found["reward"] = "The reward models differ: rewards of these runs are not comparable."
    return found


def fingerprint_of(stages: Mapping[str, Path], name: str) -> str | None:
    """The fingerprint of a finished stage; None without it."""
    folder = stages.get(name)
    return None if folder is None else folder.name.rpartition("-")[2]


def _judge(config: RunConfig, stages: Mapping[str, Path]) -> object:
    judge = config.evaluation.judge
    if judge is None or judge == "same":  # the same as none
        return None
    settings = hashed(judge)
    for use in model_uses(judge):
        section = settings
        for key in use.path[:-1]:
            section = section[key]
        section[use.path[-1]] = _model(config, use.model, stages)
    return settings


def _model(config: RunConfig, name: str, stages: Mapping[str, Path]) -> object:
    """A model's settings or, of one that runs here, its stage: what it learned in the run is part of that fingerprint."""
    stage = name if name in ("start", "teacher") else f"model-{name}"
    if name in config.local_models and (made := fingerprint_of(stages, stage)) is not None:
        return made
    settings: dict[str, Any] = hashed(config.named_models[name])
    return {key: value for key, value in settings.items() if key != ADDRESS}
