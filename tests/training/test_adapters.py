"""Adapters, and what is trained beside them, on weights in half precision."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from aligndistill.config.models import Lora
from aligndistill.config.students import Pooling, RewardTraining
from aligndistill.models.load import ModelPointer, load_language_model
from aligndistill.models.reward import load_reward_model, new_reward_model, score_rewards
from aligndistill.training.adapters import with_adapters
from aligndistill.training.fit import Trained
from aligndistill.training.offline.reward_model import train_reward_model
from aligndistill.training.save import save_model
from tests.tiny_models import ragged_rankings, ranking_examples, tiny_job, write_tiny_model

RATE = 1e-5
"""A step of it is lost in bfloat16: a weight of the tiny heads is about 0.1, where the next bfloat16 is 5e-4 away."""


def pointer(folder: Path) -> ModelPointer:
    return ModelPointer(path=str(folder), layout="chat", dtype="bfloat16")


def head_of(trained: Trained) -> torch.Tensor:
    found: torch.Tensor = trained.trainer.model.get_parameter("base_model.model.score.modules_to_save.default.weight").detach()
    return found


@pytest.mark.parametrize("task", ["CAUSAL_LM", "SEQ_CLS"])
@pytest.mark.parametrize("lora", [Lora(r=2), Lora(r=2, use_dora=True)], ids=["lora", "dora"])
def test_what_is_trained_is_in_float32_and_what_is_frozen_as_it_was(lora: Lora, task: str, tmp_path: Path) -> None:
    base = pointer(write_tiny_model(tmp_path))
    model = load_language_model(base).model if task == "CAUSAL_LM" else new_reward_model(base, seed=1).model
    adapted = with_adapters(model, lora, task, seed=0)
    kinds: dict[bool, set[torch.dtype]] = {True: set(), False: set()}
    for parameter in adapted.parameters():
        kinds[parameter.requires_grad].add(parameter.dtype)
    assert kinds == {True: {torch.float32}, False: {torch.bfloat16}}


@pytest.mark.parametrize(("members", "pooling"), [(1, "last"), (1, "mean"), (2, "last")])
def test_a_new_head_moves_by_the_rate_and_is_saved_as_it_was_trained(members: int, pooling: Pooling, tmp_path: Path) -> None:
    backbone = pointer(write_tiny_model(tmp_path / "backbone"))
    reward_model = new_reward_model(backbone, seed=1, members=members, pooling=pooling)
    before = reward_model.model.score.weight.detach().float().clone()
    examples = ranking_examples(reward_model.conversation, ragged_rankings())
    settings = RewardTraining(lora=Lora(r=2), ensemble=members, pooling=pooling)
    job = tiny_job(tmp_path / "job", learning_rate=RATE, max_steps=1)
    trained = train_reward_model(reward_model, settings, examples, job)
    head_EH = head_of(trained)
    # Adam's first step is the rate for every weight, whatever the size of its gradient.
    assert (head_EH - before).abs().flatten().tolist() == pytest.approx([RATE] * head_EH.numel(), rel=0.01)

    save_model(trained, tmp_path / "model", backbone, True, AutoModelForSequenceClassification)
    saved = load_file(tmp_path / "model" / "model.safetensors")
    assert {weight.dtype for weight in saved.values()} == {torch.bfloat16}
    assert torch.equal(saved["score.weight"], head_EH.bfloat16())
    if members == 1:
        groups = [one.group for one in examples]
        ours = {one.index: one.rewards for one in score_rewards(reward_model, groups, 8)}
        for one in score_rewards(load_reward_model(pointer(tmp_path / "model")), groups, 8):
            assert one.rewards == pytest.approx(ours[one.index], abs=0.02)


def test_a_resumed_head_goes_on_in_float32(tmp_path: Path) -> None:
    heads = []
    for name, parts in (("whole", (2,)), ("parts", (1, 2))):
        for steps in parts:
            reward_model = new_reward_model(pointer(write_tiny_model(tmp_path / "backbone")), seed=1)
            examples = ranking_examples(reward_model.conversation, ragged_rankings())
            job = tiny_job(tmp_path / name, learning_rate=RATE, max_steps=steps, runtime={"save_steps": 1})
            trained = train_reward_model(reward_model, RewardTraining(lora=Lora(r=2)), examples, job)
        heads.append(head_of(trained))
    assert heads[1].dtype == torch.float32
    assert torch.equal(*heads)
