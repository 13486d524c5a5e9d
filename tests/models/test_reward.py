"""The score is read at a response's last token, or in its mean, by the mask; what is saved gives the same score."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TextClassificationPipeline
from trl import RewardConfig, RewardTrainer

from aligndistill.config.models import Lora
from aligndistill.config.students import Pooling
from aligndistill.errors import DataError
from aligndistill.models import reward
from aligndistill.models.from_scratch import train_tokenizer
from aligndistill.models.groups import TokenGroup, collate
from aligndistill.models.load import ModelPointer
from aligndistill.models.reward import (
    START_REWARD,
    RewardModel,
    load_reward_model,
    new_reward_model,
    rewards,
    score_rewards,
    separate_heads,
)
from aligndistill.objectives.bradley_terry import bradley_terry_loss
from aligndistill.training.adapters import with_adapters
from tests.tiny_models import TEXTS, random_groups, tiny_model, write_tiny_model

GROUPS = random_groups([(7, [4, 6, 1]), (3, [5, 2]), (9, [8])], seed=2)
SHAPES = ["llama", "qwen2", "gpt2", "gpt_neox", "gemma", "mistral_window"]


@pytest.fixture(autouse=True)
def _padding_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny tokenizers have the usual padding token: with another name for it, it has to be added."""
    monkeypatch.setattr(reward, "PAD_TOKEN", "<|new|>")


def pointer(folder: Path) -> ModelPointer:
    return ModelPointer(path=str(folder), layout="chat")


def pad_is_eos(folder: Path, shape: str = "llama") -> Path:
    """A model of the common kind: its tokenizer pads with the end token."""
    tiny_model(shape, pad_token_id=None).save_pretrained(folder)
    tokenizer = train_tokenizer(TEXTS, 320, 64)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(folder)
    return folder


def by_hand(reward_model: RewardModel, group: TokenGroup, pooling: Pooling = "last") -> list[float]:
    """Backbone and head on one unpadded row, read at its last place, or in the mean over the response's."""
    model, values = reward_model.model, []
    for response in group.responses:
        with torch.no_grad():
            hidden_TH = model.base_model(input_ids=torch.tensor([group.prompt + response])).last_hidden_state[0]
            read_H = hidden_TH[-1] if pooling == "last" else hidden_TH[len(group.prompt) :].mean(0)
            values.append(model.score(read_H).item())
    return values


def scored(reward_model: RewardModel, groups: list[TokenGroup], batch_size: int) -> list[list[float]]:
    found = {one.index: one.rewards for one in score_rewards(reward_model, groups, batch_size)}
    return [found[index] for index in range(len(groups))]


@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("shape", SHAPES)
def test_scores_are_read_where_the_pooling_says_whatever_surrounds_it(shape: str, pooling: Pooling, tmp_path: Path) -> None:
    reward_model = new_reward_model(pointer(write_tiny_model(tmp_path, shape)), seed=1, pooling=pooling)
    assert reward_model.shares_prompt == (shape != "mistral_window")
    expected = [by_hand(reward_model, group, pooling) for group in GROUPS]
    for batch_size in (1, 2, 3):
        for got, want in zip(scored(reward_model, GROUPS, batch_size), expected, strict=True):
            assert got == pytest.approx(want, abs=1e-5)
    for share in {False, reward_model.shares_prompt}:
        with torch.no_grad():
            values_BK = rewards(reward_model.model, collate(GROUPS, 1, share), share)
        for row, want in zip(values_BK.tolist(), expected, strict=True):
            assert row[: len(want)] == pytest.approx(want, abs=1e-5)
            assert row[len(want) :] == [0.0] * (3 - len(want))


def test_a_model_that_reads_the_mean_does_so_after_it_was_saved_with_its_ensemble(tmp_path: Path) -> None:
    made = new_reward_model(pointer(write_tiny_model(tmp_path / "backbone")), seed=1, members=3, pooling="mean")
    made.model.save_pretrained(tmp_path / "saved")
    made.tokenizer.save_pretrained(tmp_path / "saved")
    separate_heads(tmp_path / "saved")
    (of_group,) = score_rewards(made, GROUPS[:1], 1)
    expected = [sum(members) / 3 for members in of_group.members]
    for members in (False, True):
        loaded = load_reward_model(pointer(tmp_path / "saved"), members=members)
        assert scored(loaded, GROUPS[:1], 1)[0] == pytest.approx(expected, abs=1e-5)


def test_an_end_token_inside_or_at_the_end_is_a_token_like_any_other(tmp_path: Path) -> None:
    reward_model = new_reward_model(pointer(pad_is_eos(tmp_path)), seed=1)
    end = reward_model.conversation.end_of_turn
    groups = [TokenGroup([end, 10, end], [[20, end], [21, 22, 23, end, end], [24]])]
    assert scored(reward_model, groups, 1)[0] == pytest.approx(by_hand(reward_model, groups[0]), abs=1e-5)


@pytest.mark.parametrize("make", [write_tiny_model, pad_is_eos])
def test_padding_becomes_a_token_of_its_own(make: Any, tmp_path: Path) -> None:
    reward_model = new_reward_model(pointer(make(tmp_path)), seed=1)
    tokenizer, model = reward_model.conversation.tokenizer, reward_model.model
    assert model.config.pad_token_id == tokenizer.pad_token_id == reward_model.conversation.pad_id
    assert tokenizer.pad_token_id not in reward_model.conversation.eos_ids
    assert model.get_input_embeddings().num_embeddings == 320 + (make is pad_is_eos)
    assert tokenizer.pad_token == ("<|new|>" if make is pad_is_eos else "<|pad|>")


def scaled(folder: Path, factor: float) -> Path:
    """The same model with hidden states that are `factor` times as large: its last norm is."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.model.norm.weight *= factor
    model.save_pretrained(folder)
    return folder


def test_a_new_model_starts_with_the_same_small_rewards_for_any_scale_of_hidden_states(tmp_path: Path) -> None:
    groups = random_groups([(7, [9, 9])] * 200, seed=4)
    sizes = {"hidden_size": 256, "num_attention_heads": 4, "num_hidden_layers": 1}
    folders = {factor: scaled(write_tiny_model(tmp_path / str(factor), **sizes), factor) for factor in (0.01, 1.0, 100.0)}
    found = {factor: torch.tensor(scored(new_reward_model(pointer(folder), 1), groups, 50)) for factor, folder in folders.items()}
    for factor in (0.01, 100.0):
        torch.testing.assert_close(found[factor], found[1.0], rtol=1e-3, atol=1e-4)
    assert found[1.0].square().mean().sqrt().item() == pytest.approx(START_REWARD, rel=0.3)
    loss = torch.nn.functional.softplus(found[1.0][:, 1] - found[1.0][:, 0]).mean().item()
    assert abs(loss - math.log(2)) < 0.02


def test_the_head_follows_from_the_seed(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path)
    heads = [new_reward_model(pointer(folder), seed).model.score.weight for seed in (1, 1, 2)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


@pytest.mark.parametrize("lora", [None, Lora(r=2)])
def test_the_first_step_has_a_gradient_for_the_backbone(lora: Lora | None, tmp_path: Path) -> None:
    reward_model = new_reward_model(pointer(scaled(write_tiny_model(tmp_path), 100.0)), seed=1)
    model = with_adapters(reward_model.model, lora, "SEQ_CLS", seed=0)
    batch = collate([TokenGroup([5, 6], [[7, 8, 9], [10, 11]])], reward_model.conversation.pad_id, share=False)
    bradley_terry_loss(rewards(model, batch, False), torch.tensor([[1.0, 0.0]]), batch.valid_BK).value.backward()
    learning = [name for name, one in model.named_parameters() if one.grad is not None and one.grad.any()]
    assert any("score" in name for name in learning)
    assert any(("lora_B" if lora else "layers.0.self_attn") in name for name in learning)


@pytest.mark.parametrize("make", [write_tiny_model, pad_is_eos])
def test_a_saved_reward_model_means_the_same_everywhere(make: Any, tmp_path: Path) -> None:
    ours = new_reward_model(pointer(make(tmp_path / "backbone")), seed=1)
    saved = tmp_path / "saved"
    ours.model.save_pretrained(saved)
    ours.conversation.tokenizer.save_pretrained(saved)
    texts = ["Repeat the word blue four times.", "No."]
    groups = [
        TokenGroup(
            ours.conversation._encode(text), [ours.conversation.response_ids("blue blue"), ours.conversation.response_ids("No")]
        )
        for text in texts
    ]
    expected = scored(ours, groups, 2)
    for got, want in zip(scored(load_reward_model(pointer(saved)), groups, 2), expected, strict=True):
        assert got == pytest.approx(want, abs=1e-6)

    # transformers, as anybody would: texts in, padded together, one number out of each.
    model = AutoModelForSequenceClassification.from_pretrained(saved)
    tokenizer = AutoTokenizer.from_pretrained(saved)
    pipeline = TextClassificationPipeline(model=model, tokenizer=tokenizer)
    whole = [text + answer + "<|end|>" for text in texts for answer in ("blue blue", "No")]
    ids = [group.prompt + response for group in groups for response in group.responses]
    assert [tokenizer(text).input_ids for text in whole] == ids
    theirs = [one["score"] for one in pipeline(whole, function_to_apply="none", batch_size=4)]
    assert theirs == pytest.approx([value for row in expected for value in row], abs=1e-5)

    # TRL, through its own trainer: loss = -log sigmoid(first - second), so it has read the same two numbers.
    rows = Dataset.from_list(
        [{"chosen_ids": ids[2 * n], "rejected_ids": ids[2 * n + 1]} for n in range(2)],
    )
    arguments = RewardConfig(output_dir=str(tmp_path / "trl"), use_cpu=True, bf16=False, report_to="none", disable_tqdm=True)
    trainer = RewardTrainer(model=model, args=arguments, train_dataset=rows, processing_class=tokenizer)
    batch = next(iter(trainer.get_train_dataloader()))
    with torch.no_grad():
        loss = trainer.compute_loss(trainer.model.eval(), batch).item()
    gaps = torch.tensor([row[0] - row[1] for row in expected])
    assert loss == pytest.approx(-torch.nn.functional.logsigmoid(gaps).mean().item(), abs=1e-5)


def test_more_labels_than_one_are_no_reward(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path)
    AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3).save_pretrained(folder)
    with pytest.raises(DataError, match=r"has 3 labels; a reward model must have one"):
        load_reward_model(pointer(folder))
