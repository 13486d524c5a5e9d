"""An ensemble of reward models: heads over one backbone."""

from pathlib import Path
from statistics import fmean, stdev

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from aligndistill.config.models import Lora
from aligndistill.config.students import RewardTraining
from aligndistill.errors import DataError
from aligndistill.judges.protocol import Task
from aligndistill.judges.reward_model import RewardModelJudge
from aligndistill.models.load import ModelPointer
from aligndistill.models.reward import load_reward_model, new_reward_model, score_rewards, separate_heads
from aligndistill.objectives.bradley_terry import bradley_terry_loss
from aligndistill.records import Candidate, Grade, Message
from aligndistill.training.offline.reward_model import BootstrapCollator, train_reward_model
from aligndistill.training.save import save_model
from tests.tiny_models import ragged_rankings, ranking_examples, tiny_job, write_tiny_model


def test_a_prompts_weight_multiplies_its_loss_and_gradient() -> None:
    rewards_BK = torch.tensor([[0.3, -0.2], [0.1, 0.4]], requires_grad=True)
    scores_BK, valid_BK = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.ones(2, 2, dtype=torch.bool)

    def of(weights: list[float] | None) -> torch.Tensor:
        weight_B = None if weights is None else torch.tensor(weights)
        return bradley_terry_loss(rewards_BK, scores_BK, valid_BK, weight_B=weight_B).value

    first, second = (torch.nn.functional.softplus(torch.tensor(-gap)) for gap in (0.5, -0.3))
    assert of([3.0, 0.0]).item() == pytest.approx(3 * first.item() / 2)
    assert of([1.0, 2.0]).item() == pytest.approx((first + 2 * second).item() / 2)
    assert of([1.0, 1.0]).item() == of(None).item()


def test_bootstrap_weights_are_those_of_the_prompt(tmp_path: Path) -> None:
    reward_model = new_reward_model(ModelPointer(path=str(write_tiny_model(tmp_path / "b")), layout="chat"), 1, members=3)
    examples = ranking_examples(reward_model.conversation, ragged_rankings())
    arguments = (reward_model.conversation.pad_id, reward_model.shares, reward_model.shares_prompt)

    def weights(seed: int, order: list[int]) -> torch.Tensor:
        return BootstrapCollator(*arguments, members=400, seed=seed)([examples[i] for i in order])["weight_BE"]

    forwards, backwards = weights(0, [0, 1]), weights(0, [1, 0])
    assert torch.equal(forwards, backwards.flip(0))
    assert not torch.equal(forwards, weights(1, [0, 1]))
    assert not torch.equal(forwards[0], forwards[1])
    assert forwards.mean().item() == pytest.approx(1, abs=0.15)  # Poisson(1)
    assert forwards.var().item() == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize("lora", [None, Lora(r=2)])
def test_a_saved_ensemble_is_an_ordinary_reward_model_with_its_members_beside(lora: Lora | None, tmp_path: Path) -> None:
    backbone = ModelPointer(path=str(write_tiny_model(tmp_path / "backbone")), layout="chat")
    reward_model = new_reward_model(backbone, seed=1, members=3)
    examples = ranking_examples(reward_model.conversation, ragged_rankings())
    groups = [one.group for one in examples]
    job = tiny_job(tmp_path / "job", learning_rate=1e-2, max_steps=3, batch_size=8)
    settings = RewardTraining(lora=lora, ensemble=3)
    trained = train_reward_model(reward_model, settings, examples, job)
    assert trained.log[0]["loss"] > 0
    folder = tmp_path / "model"
    save_model(trained, folder, backbone, lora is not None, AutoModelForSequenceClassification)
    before = AutoModelForSequenceClassification.from_pretrained(folder).score.weight.detach()
    assert before.shape[0] == 3
    assert not torch.allclose(before[0], before[1])
    separate_heads(folder)

    plain = AutoModelForSequenceClassification.from_pretrained(folder)
    assert plain.config.num_labels == 1
    assert torch.allclose(plain.score.weight[0], before.mean(0), atol=1e-6)
    assert torch.equal(load_file(folder / "ensemble.safetensors")["heads_EH"], before)
    pointer = ModelPointer(path=str(folder), layout="chat")
    mean, members = load_reward_model(pointer), load_reward_model(pointer, members=True)
    by_mean = {one.index: one for one in score_rewards(mean, groups, 8)}
    by_members = {one.index: one for one in score_rewards(members, groups, 8)}
    for index, one in by_members.items():
        assert one.rewards == pytest.approx(by_mean[index].rewards, abs=1e-5)
        assert by_mean[index].deviations == [0.0] * len(one.rewards)
        for reward, deviation, of_members in zip(one.rewards, one.deviations, one.members, strict=True):
            assert reward == pytest.approx(fmean(of_members), abs=1e-5)
            assert deviation == pytest.approx(stdev(of_members), abs=1e-6)
            assert deviation > 0

    messages = (Message(role="user", content="What?"),)
    answers = tuple(Candidate(id=text, prompt_id="p", text=text, author="a", finish="stop") for text in ("one", "two two"))
    task = Task("p", messages, answers)
    grades = []
    for pessimism in (0.0, 1.0, 2.0):
        (judged,) = RewardModelJudge("rm", members, 8, pessimism=pessimism).judge([task])
        grades.append([verdict.value for verdict in judged.verdicts if isinstance(verdict, Grade)])
    for nothing, once, twice in zip(*grades, strict=True):
        assert nothing is not None
        assert once is not None
        assert twice is not None
        assert nothing > once > twice
        assert nothing - twice == pytest.approx(2 * (nothing - once), abs=1e-5)


def test_a_reward_model_without_members_cannot_be_pessimistic(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "model")
    with pytest.raises(DataError, match=r"has no ensemble\.safetensors: 'pessimism' needs"):
        load_reward_model(ModelPointer(path=str(folder), layout="chat"), members=True)
