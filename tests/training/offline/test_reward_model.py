"""The length term of a reward model's training, of which nothing is saved, and training of the head alone."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from aligndistill.config.models import Lora
from aligndistill.config.students import RewardTraining
from aligndistill.models.load import ModelPointer
from aligndistill.models.reward import load_reward_model, new_reward_model, score_rewards
from aligndistill.objectives.length_bias import LengthTerm
from aligndistill.training.offline.reward_model import length_term, train_reward_model
from aligndistill.training.save import save_model
from tests.tiny_models import ragged_rankings, ranking_examples, tiny_job, write_tiny_model


def test_the_term_is_fitted_only_where_it_is_asked_for(tmp_path: Path) -> None:
    reward_model = new_reward_model(ModelPointer(path=str(write_tiny_model(tmp_path / "backbone")), layout="chat"), seed=1)
    examples = ranking_examples(reward_model.conversation, ragged_rankings())
    assert length_term(RewardTraining(), examples) is None
    found = length_term(RewardTraining(length_debiased=True), examples)
    assert found is not None
    assert found.deviation_tokens > 0


@pytest.mark.parametrize("lora", [None, Lora(r=2)])
def test_a_saved_reward_model_knows_nothing_of_the_term(lora: Lora | None, tmp_path: Path) -> None:
    """With a learning rate of almost 0 its rewards stay what they were, however large the term, which the loss shows."""
    backbone = ModelPointer(path=str(write_tiny_model(tmp_path / "backbone")), layout="chat")
    losses, saved = {}, {}
    for weight in (None, 8.0):
        reward_model = new_reward_model(backbone, seed=1)
        examples = ranking_examples(reward_model.conversation, ragged_rankings())
        groups = [one.group for one in examples]
        before = {scored.index: scored.rewards for scored in score_rewards(reward_model, groups, 8)}
        job = tiny_job(tmp_path / f"job-{weight}", learning_rate=1e-12, max_steps=1, batch_size=8)
        settings = RewardTraining(lora=lora, length_debiased=weight is not None)
        term = None if weight is None else LengthTerm(weight, 5.0)
        trained = train_reward_model(reward_model, settings, examples, job, term)
        folder = tmp_path / f"model-{weight}"
        save_model(trained, folder, backbone, lora is not None, AutoModelForSequenceClassification)
        losses[weight] = trained.log[0]["loss"]
        saved[weight] = load_file(folder / "model.safetensors")
        loaded = load_reward_model(ModelPointer(path=str(folder), layout="chat"))
        for scored in score_rewards(loaded, groups, 8):
            assert scored.rewards == pytest.approx(before[scored.index], abs=1e-5)
    assert saved[8.0].keys() == saved[None].keys()
    assert abs(losses[8.0] - losses[None]) > 0.1


def test_of_a_head_alone_nothing_else_changes_and_it_learns(tmp_path: Path) -> None:
    backbone = ModelPointer(path=str(write_tiny_model(tmp_path / "backbone")), layout="chat")
    reward_model = new_reward_model(backbone, seed=1, pooling="mean")
    before = {name: weight.clone() for name, weight in reward_model.model.state_dict().items()}
    examples = ranking_examples(reward_model.conversation, ragged_rankings())
    job = tiny_job(tmp_path / "job", learning_rate=1e-2, max_steps=20, batch_size=8)
    trained = train_reward_model(reward_model, RewardTraining(trains="head", pooling="mean"), examples, job)
    save_model(trained, tmp_path / "model", backbone, False, AutoModelForSequenceClassification)
    saved = load_file(tmp_path / "model" / "model.safetensors")
    changed = {name for name, weight in saved.items() if not torch.equal(weight, before[name])}
    assert changed == {"score.weight"}
    assert trained.log[-1]["loss"] < trained.log[0]["loss"]
