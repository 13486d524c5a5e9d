"""A stop that is asked for between two regular checkpoints: one is saved there, and a resumed run equals an uninterrupted one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from aligndistill.config.objectives import Grpo, Rewarded, Rloo
from aligndistill.errors import Interrupted
from aligndistill.processes import signals
from aligndistill.training.checkpoints import all_checkpoints
from aligndistill.training.fit import Trained
from aligndistill.training.on_policy.rollouts import SampledPrompt
from aligndistill.training.on_policy.trl import train_by_trl
from tests.tiny_models import QUESTIONS, tiny_job, tiny_language_model
from tests.training.on_policy.tiny_ppo import Score, policy_prompts, tiny_ppo, vowels

RARELY = {"save_steps": 100}
TIMES = ("seconds", "step_time")


class Stopping:
    """A reward during whose first call a SIGTERM arrives, which a training only notes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch

    def __call__(self, asked: Sequence[SampledPrompt]) -> list[list[float | None]]:
        self._patch.setattr(signals, "asked", lambda: "SIGTERM")
        return vowels(asked)


def saved(folder: Path) -> list[str]:
    return [one.name for one in all_checkpoints(folder)]


def log_of(trained: Trained) -> list[dict[str, float]]:
    return [{name: value for name, value in entry.items() if not name.endswith(TIMES)} for entry in trained.log]


def test_ppo_ends_after_the_update_in_which_it_is_asked_to_stop(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"updates": 3, "minibatches": 2, "kl_target": 0.5, "kl_horizon": 100, "normalise_rewards": True}
    settings["runtime"] = RARELY
    whole = tiny_ppo(tmp_path / "whole", **settings)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted, match=r"stopped by SIGTERM; saved .*checkpoint-4"):
        tiny_ppo(tmp_path / "stopped", score=Stopping(patch), **settings)
    assert saved(tmp_path / "stopped/job") == ["checkpoint-4"]  # 2 passes over 2 minibatches
    resumed = tiny_ppo(tmp_path / "stopped", **settings)
    assert len(resumed.rollouts) == 2
    assert resumed.trained.steps == whole.trained.steps == 12
    assert all(torch.equal(value, resumed.weights[name]) for name, value in whole.weights.items())
    assert log_of(resumed.trained) == log_of(whole.trained)


@pytest.mark.parametrize("objective", [Grpo(kind="grpo", samples_per_prompt=2), Rloo(kind="rloo", samples_per_prompt=2)])
def test_trl_ends_after_the_step_in_which_it_is_asked_to_stop(objective: Rewarded, tmp_path: Path) -> None:
    """A log entry is the mean of two steps, of which the first is before the stop."""

    def train(folder: Path, score: Score) -> Trained:
        policy = tiny_language_model()
        runtime = {**RARELY, "logging_steps": 2}
        job = tiny_job(folder, max_steps=4, batch_size=4, max_response_tokens=4, learning_rate=1e-2, runtime=runtime)
        settings = objective.model_copy(update={"kl_coefficient": 0.0})
        prompts = policy_prompts(policy, QUESTIONS)
        return train_by_trl(policy.model, policy.conversation, settings, None, prompts, score, job)

    whole = train(tmp_path / "whole", vowels)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted, match=r"stopped by SIGTERM; saved .*checkpoint-1"):
        train(tmp_path / "stopped", Stopping(patch))
    assert saved(tmp_path / "stopped") == ["checkpoint-1"]
    resumed = train(tmp_path / "stopped", vowels)
    assert resumed.steps == whole.steps == 4
    weights = resumed.trainer.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in whole.trainer.model.state_dict().items())
    assert len(whole.log) == 2
    assert log_of(resumed) == log_of(whole)
