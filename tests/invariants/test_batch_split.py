"""How an optimiser step is split into micro-batches changes neither its losses nor the weights it leaves."""

from pathlib import Path
from typing import Any

import pytest
import torch

from aligndistill.config.objectives import BestOfN, Dpo, Pro, Rrhf
from aligndistill.config.students import RewardModel as RewardModelSettings
from aligndistill.models.load import ModelPointer
from aligndistill.models.reward import new_reward_model
from aligndistill.training.fit import Trained
from aligndistill.training.offline.policy import train_policy
from aligndistill.training.offline.reward_model import train_reward_model
from tests.tiny_models import (
    ANSWERS,
    QUESTIONS,
    ragged_rankings,
    ranking,
    ranking_examples,
    tiny_job,
    tiny_language_model,
    write_tiny_model,
)

OBJECTIVES = {
    "supervised": "supervised",
    "dpo": Dpo(kind="dpo"),
    "ipo": Dpo(kind="dpo", loss="ipo", labels="soft"),
    "rrhf": Rrhf(kind="rrhf"),
    "pro": Pro(kind="pro"),
    "best_of_n": BestOfN(kind="best_of_n"),
}
METRICS = ("grad_norm", "rewards/chosen", "rewards/margins", "rank_loss", "sft_loss", "accuracy", "logps/chosen", "margin")


def weights(trained: Trained) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in trained.trainer.model.parameters()]


def train(what: str, per_device: int, folder: Path) -> Trained:
    # 2 steps of 8 prompts; the rate is large enough for a difference to show, and small enough for rounding not to.
    job = tiny_job(folder / "job", max_steps=2, runtime={"per_device_train_batch_size": per_device})
    if what == "reward_model":
        trunk = ModelPointer(path=str(write_tiny_model(folder / "trunk")), layout="chat")
        reward_model = new_reward_model(trunk, seed=1)
        examples = ranking_examples(reward_model.conversation, ragged_rankings())
        return train_reward_model(reward_model, RewardModelSettings(), examples, job)
    policy = tiny_language_model()
    objective: Any = OBJECTIVES[what]
    if what == "supervised":
        rankings = [ranking(question, ANSWERS[n % 5]) for n, question in enumerate(QUESTIONS)]
    else:
        rankings = ragged_rankings()
    reference = tiny_language_model() if isinstance(objective, Dpo) else None
    return train_policy(policy, objective, None, ranking_examples(policy.conversation, rankings, reference), job)


@pytest.mark.parametrize("what", [*OBJECTIVES, "reward_model"])
def test_eight_ones_four_twos_two_fours_one_eight(what: str, tmp_path: Path) -> None:
    runs = {per_device: train(what, per_device, tmp_path / str(per_device)) for per_device in (1, 2, 8)}
    whole = runs[8]
    assert whole.steps == 2
    assert whole.trainer.args.gradient_accumulation_steps == 1
    start = weights(train(what, 8, tmp_path / "again")) if what == "dpo" else None
    if start is not None:  # and equal runs are equal to the bit, so that a difference means something
        assert all(torch.equal(one, other) for one, other in zip(start, weights(whole), strict=True))
    for per_device in (1, 2):
        split = runs[per_device]
        assert split.trainer.args.gradient_accumulation_steps == 8 // per_device
        for ours, theirs in zip(split.log, whole.log, strict=True):
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5, abs=1e-6)
            for name in METRICS:
                if name in theirs:
                    assert ours[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-5), name
        for one, other in zip(weights(split), weights(whole), strict=True):
            assert (one - other).abs().max() < 2e-5  # a step of Adam moves a weight by 1e-3
