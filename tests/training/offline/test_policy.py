"""What training leaves behind: weights, adapters, saved folders; and what it does when the loss is lost."""

import math
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from aligndistill.config.models import Lora
from aligndistill.config.offline_objectives import Dpo, Pro
from aligndistill.config.run import Runtime
from aligndistill.config.students import Pooling
from aligndistill.config.students import RewardTraining as RewardModelSettings
from aligndistill.errors import ConfigError, TrainingError
from aligndistill.models import reward
from aligndistill.models.from_scratch import train_tokenizer
from aligndistill.models.load import ModelPointer, load_language_model
from aligndistill.models.reward import load_reward_model, new_reward_model, score_rewards
from aligndistill.training.arguments import BatchSplit, batch_split, within_tokens
from aligndistill.training.checkpoints import all_checkpoints, newest_valid_checkpoint
from aligndistill.training.offline.examples import Example
from aligndistill.training.offline.policy import train_policy
from aligndistill.training.offline.reward_model import train_reward_model
from aligndistill.training.offline.trainer import split_by_length
from aligndistill.training.save import save_model
from tests.tiny_models import (
    TEXTS,
    ragged_rankings,
    ranking,
    ranking_examples,
    tiny_job,
    tiny_language_model,
    tiny_model,
    write_tiny_model,
)

LORA = Lora(r=4, lora_alpha=8)
IDS = torch.tensor([[5, 6, 7, 8, 9]])


def pointer(folder: Path) -> ModelPointer:
    return ModelPointer(path=str(folder), layout="chat")


def weights(model: Any) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def dpo_examples() -> list[Example]:
    reference = tiny_language_model()
    return ranking_examples(reference.conversation, ragged_rankings(), reference)


# ------------------------------------------------------------------------------------------------------------- saving


def test_a_trained_model_is_saved_as_any_other(tmp_path: Path) -> None:
    policy = tiny_language_model()
    before = weights(policy.model)
    trained = train_policy(policy, Pro(kind="pro"), None, dpo_examples(), tiny_job(tmp_path / "job"))
    save_model(trained, tmp_path / "model", None, False, AutoModelForCausalLM)
    after = weights(policy.model)
    assert all(not torch.equal(before[name], after[name]) for name in before)
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert all(torch.equal(value, after[name]) for name, value in saved.named_parameters())
    assert saved.config.use_cache
    assert sorted(path.suffix for path in (tmp_path / "model").iterdir() if path.suffix not in {".json", ".jinja"}) == [
        ".safetensors"
    ]
    assert load_language_model(pointer(tmp_path / "model")).shares_prompt


@pytest.mark.parametrize("pads", [True, False])
def test_adapters_leave_the_base_alone_and_are_merged_when_saved(pads: bool, tmp_path: Path) -> None:
    base = write_tiny_model(tmp_path / "base")
    if not pads:  # many language models' tokenizers have no padding token
        tokenizer = train_tokenizer(TEXTS, 320, 64)
        tokenizer.pad_token = None
        tokenizer.save_pretrained(base)
    policy = load_language_model(pointer(base))
    before = weights(policy.model)
    trained = train_policy(policy, Dpo(kind="dpo"), LORA, dpo_examples(), tiny_job(tmp_path / "job", learning_rate=1e-2))
    assert trained.log[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert trained.log[-1]["loss"] < math.log(2) - 0.01

    wrapped = trained.trainer.model.eval()
    inside = {name.replace("base_model.model.", "").replace(".base_layer", ""): value for name, value in wrapped.named_parameters()}
    assert all(torch.equal(inside[name], value) for name, value in before.items())
    with torch.no_grad():
        together = wrapped(input_ids=IDS).logits

    save_model(trained, tmp_path / "model", pointer(base), True, AutoModelForCausalLM)
    assert (tmp_path / "model-adapter" / "adapter_model.safetensors").is_file()
    assert not list(tmp_path.rglob("model*/training_args.bin"))
    assert not list((tmp_path / "model").glob("adapter*"))
    merged = load_language_model(pointer(tmp_path / "model")).model
    with torch.no_grad():
        assert (merged(input_ids=IDS).logits - together).abs().max() < 1e-4
        assert (merged(input_ids=IDS).logits - tiny_model()(input_ids=IDS).logits).abs().max() > 1e-2
    on_disk = load_file(base / "model.safetensors")
    assert all(torch.equal(on_disk[name], before[name]) for name in on_disk if name in before)


@pytest.mark.parametrize("pad_is_eos", [False, True])
@pytest.mark.parametrize(("lora", "pooling"), [(None, "last"), (LORA, "last"), (LORA, "mean")])
def test_a_saved_reward_model_scores_as_the_trained_one(
    lora: Lora | None, pooling: Pooling, pad_is_eos: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = write_tiny_model(tmp_path / "backbone")
    if pad_is_eos:  # then a padding token is added, and the embeddings grow
        monkeypatch.setattr(reward, "PAD_TOKEN", "<|new|>")  # the tokenizer has the usual one
        tokenizer = train_tokenizer(TEXTS, 320, 64)
        tokenizer.pad_token = tokenizer.eos_token
        tokenizer.save_pretrained(backbone)
    reward_model = new_reward_model(pointer(backbone), seed=1, pooling=pooling)
    assert reward_model.model.get_input_embeddings().num_embeddings == 320 + pad_is_eos
    examples = ranking_examples(reward_model.conversation, ragged_rankings())
    groups = [example.group for example in examples]
    before = {one.index: one.rewards for one in score_rewards(reward_model, groups, 4)}
    settings = RewardModelSettings(lora=lora, pooling=pooling)
    trained = train_reward_model(reward_model, settings, examples, tiny_job(tmp_path / "job", learning_rate=1e-2))
    after = {one.index: one.rewards for one in score_rewards(reward_model, groups, 4)}
    assert all(after[n] != pytest.approx(before[n], abs=1e-2) for n in after)
    save_model(trained, tmp_path / "model", pointer(backbone), lora is not None, AutoModelForSequenceClassification)
    saved = load_reward_model(pointer(tmp_path / "model"))
    assert saved.conversation.tokenizer.pad_token_id == saved.model.config.pad_token_id
    found = {one.index: one.rewards for one in score_rewards(saved, groups, 4)}
    for n, expected in after.items():
        assert found[n] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("lora", [None, LORA])
def test_recomputed_activations_change_nothing(lora: Lora | None, tmp_path: Path) -> None:
    logs = []
    for recompute in (False, True):
        job = tiny_job(tmp_path / str(recompute), runtime={"gradient_checkpointing": recompute})
        logs.append(train_policy(tiny_language_model(), Dpo(kind="dpo"), lora, dpo_examples(), job).log)
    for one, other in zip(*logs, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-6)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-5)
        assert one["grad_norm"] > 0


def test_log_probs_and_scores_keep_their_digits_where_deepspeed_trains_in_bfloat16(tmp_path: Path) -> None:
    """transformers casts a batch's floats to the dtype of DeepSpeed's config, as if they were inputs of the model."""
    job = tiny_job(tmp_path, max_steps=1)
    trainer = train_policy(tiny_language_model(), Dpo(kind="dpo"), None, dpo_examples(), job).trainer
    trainer.is_deepspeed_enabled = True
    plugin = SimpleNamespace(hf_ds_config=SimpleNamespace(dtype=lambda: torch.bfloat16))
    trainer.accelerator = SimpleNamespace(state=SimpleNamespace(deepspeed_plugin=plugin))
    given = {"reference_BK": torch.tensor([[-150.3]]), "input_ids_NT": torch.tensor([[5]]), "share": False}
    found = trainer._prepare_inputs(given)
    assert found["reference_BK"].dtype == torch.float32
    assert found["reference_BK"].item() == given["reference_BK"].item()
    assert found["share"] is False


# --------------------------------------------------------------------------------------------------- a loss that is lost


def one_by_one(folder: Path) -> Any:
    return tiny_job(folder, batch_size=1, max_steps=8, runtime={"save_steps": 1})


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_the_last_good_checkpoint(tmp_path: Path) -> None:
    examples = dpo_examples()
    spoilt = 3
    # A prompt whose answers are equals costs nothing: so a run without failures shows at which step it comes.
    equals = [
        Example(one.group, [0.0] * len(one.scores) if n == spoilt else one.scores, one.reference) for n, one in enumerate(examples)
    ]
    undisturbed = train_policy(tiny_language_model(), Dpo(kind="dpo"), None, equals, one_by_one(tmp_path / "undisturbed"))
    (step,) = [entry["step"] for entry in undisturbed.log if entry["loss"] == 0]
    assert 1 < step < 8

    assert examples[spoilt].reference is not None
    broken = [
        Example(one.group, one.scores, [math.nan] * len(one.scores)) if n == spoilt else one for n, one in enumerate(examples)
    ]
    folder = tmp_path / "broken"
    with pytest.raises(TrainingError, match=f"not finite at step {int(step)} of 8") as error:
        train_policy(tiny_language_model(), Dpo(kind="dpo"), None, broken, one_by_one(folder))
    assert str(folder) in str(error.value)
    last_good = newest_valid_checkpoint(folder)
    assert last_good == folder / f"checkpoint-{int(step) - 1}" == all_checkpoints(folder)[-1]
    assert all(value.isfinite().all() for value in load_file(last_good / "model.safetensors").values())


def test_weights_spoilt_by_the_last_gradient_are_not_saved(tmp_path: Path) -> None:
    policy = tiny_language_model()
    steps: list[int] = []

    def spoil(gradient: Tensor) -> Tensor:
        steps.append(len(steps) + 1)
        return gradient * math.nan if len(steps) == 3 else gradient

    next(policy.model.parameters()).register_hook(spoil)
    job = tiny_job(tmp_path, max_steps=3, runtime={"save_steps": 1})
    with pytest.raises(TrainingError, match="not finite at step 3 of 3"):
        train_policy(policy, Dpo(kind="dpo"), None, dpo_examples(), job)
    assert newest_valid_checkpoint(tmp_path) == tmp_path / "checkpoint-2" == all_checkpoints(tmp_path)[-1]


def test_a_finished_job_is_not_trained_again(tmp_path: Path) -> None:
    demonstrations = ranking_examples(tiny_language_model().conversation, [ranking("No?", "No."), ranking("What is blue?", "blue")])
    trained = [
        train_policy(tiny_language_model(), "supervised", None, demonstrations, tiny_job(tmp_path, batch_size=1, max_steps=3))
        for _ in range(2)
    ]
    assert [one.steps for one in trained] == [3, 3]
    first, again = (weights(one.trainer.model) for one in trained)
    assert all(torch.equal(first[name], again[name]) for name in first)


# -------------------------------------------------------------------------------------------------------- splitting


def test_the_batch_is_split_exactly_or_not_at_all() -> None:
    assert batch_split(32, 8, 1) == BatchSplit(8, 4)
    assert batch_split(32, 12, 1) == BatchSplit(8, 4)
    assert batch_split(6, 4, 2) == BatchSplit(3, 1)
    assert batch_split(7, 4, 1) == BatchSplit(1, 7)
    with pytest.raises(ConfigError, match="batch_size 6 cannot be divided by 4 processes"):
        batch_split(6, 4, 4)
    for batch_size in range(1, 40):
        for most in (1, 3, 8):
            split = batch_split(batch_size, most, 1)
            assert split.per_device * split.accumulation == batch_size
            assert split.per_device <= most


def test_a_token_budget_makes_micro_batches_smaller_and_steps_no_other() -> None:
    assert within_tokens(Runtime(), 1000) == Runtime()
    limited = Runtime(per_device_train_batch_size=8, max_tokens_per_batch=4000)
    assert within_tokens(limited, 1000).per_device_train_batch_size == 4
    assert within_tokens(limited, 100).per_device_train_batch_size == 8
    assert within_tokens(limited, 5000).per_device_train_batch_size == 1  # a row cannot be cut
    assert batch_split(32, within_tokens(limited, 1000).per_device_train_batch_size, 1) == BatchSplit(4, 8)


def padded(lengths: list[int], parts: list[list[int]]) -> list[int]:
    return [len(part) * max(lengths[i] for i in part) for part in parts]


def test_micro_batches_hold_rows_of_similar_length() -> None:
    # In turn they would be (9, 1) and (8, 1): 18 + 16 tokens; 9 apart from the others would need 3 * 8 = 24 in the second.
    assert split_by_length([9, 1, 8, 1], 2) == [[0, 2], [1, 3]]
    # One long row, five short ones: two equal parts would hold 300 tokens at most, these hold 100.
    assert split_by_length([10, 10, 100, 10, 10, 10], 2) == [[2], [0, 1, 3, 4, 5]]
    assert sorted(map(len, split_by_length([5] * 6, 3))) == [2, 2, 2]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=7), st.integers(1, 7))
def test_no_split_of_sorted_rows_has_a_smaller_largest_part(lengths: list[int], count: int) -> None:
    count = min(count, len(lengths))
    parts = split_by_length(lengths, count)
    assert len(parts) == count
    assert sorted(i for part in parts for i in part) == list(range(len(lengths)))
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    every = (
        [order[a:b] for a, b in zip((0, *cuts), (*cuts, len(order)), strict=True)]
        for cuts in combinations(range(1, len(order)), count - 1)
    )
    assert max(padded(lengths, parts)) == min(max(padded(lengths, split)) for split in every)


def test_the_loss_is_the_same_with_a_token_budget(tmp_path: Path) -> None:
    losses = []
    for number, limit in enumerate((None, 1)):
        job = tiny_job(tmp_path / str(number), runtime={"max_tokens_per_batch": limit, "logging_steps": 1}, max_steps=3)
        trained = train_policy(tiny_language_model(), Pro(kind="pro"), None, dpo_examples(), job)
        losses.append([entry["loss"] for entry in trained.log])
        assert trained.trainer.args.per_device_train_batch_size == (1 if limit else min(8, job.settings.batch_size))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
