"""TRL's own trainers on the same model, data and batch: the same ids, losses and gradient norms."""

from pathlib import Path
from typing import Any, Literal

import pytest
from datasets import Dataset
from transformers import AutoModelForSequenceClassification
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

from aligndistill.config.offline_objectives import Dpo, Kto
from aligndistill.config.students import RewardTraining as RewardModelSettings
from aligndistill.models.load import ModelPointer
from aligndistill.models.reward import new_reward_model
from aligndistill.training.offline.examples import Example
from aligndistill.training.offline.policy import train_policy
from aligndistill.training.offline.reward_model import train_reward_model
from tests.tiny_models import (
    ANSWERS,
    QUESTIONS,
    pairs,
    ranking,
    ranking_examples,
    tiny_job,
    tiny_language_model,
    tiny_model,
    tiny_tokenizer,
    write_tiny_model,
)


def conversational(*names: str) -> Dataset:
    """The pairs as TRL takes them; `names` are its columns for the better and the worse answer."""
    return Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": one.messages[0].content}],
                **{
                    name: [{"role": "assistant", "content": response.text}]
                    for name, response in zip(names, one.responses, strict=False)
                },
            }
            for one in pairs()
        ]
    )


def settings(folder: Path) -> dict[str, Any]:
    """As `tiny_job`: one batch holds all the data, so that the order does not matter."""
    return {
        "output_dir": str(folder),
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "per_device_train_batch_size": 8,
        "max_steps": 3,
        "logging_steps": 1,
        "max_grad_norm": 1.0,
        "optim": "adamw_torch",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def curve(log: list[dict[str, float]]) -> list[tuple[float, float]]:
    return [(entry["loss"], entry["grad_norm"]) for entry in log if "loss" in entry]


def assert_same_curve(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> None:
    assert len(curve(ours)) == len(curve(theirs)) == 3
    for (loss, norm), (their_loss, their_norm) in zip(curve(ours), curve(theirs), strict=True):
        assert loss == pytest.approx(their_loss, rel=1e-5, abs=1e-5)
        assert norm == pytest.approx(their_norm, rel=1e-5, abs=1e-5)
    assert curve(ours)[0][0] != pytest.approx(curve(ours)[2][0], abs=1e-3)  # something was learned


@pytest.mark.parametrize("loss", ["sigmoid", "sigmoid_norm", "ipo", "hinge"])
def test_dpo(loss: Literal["sigmoid", "sigmoid_norm", "ipo", "hinge"], tmp_path: Path) -> None:
    policy = tiny_language_model("llama")
    examples = ranking_examples(policy.conversation, pairs(), reference=tiny_language_model("llama"))
    trained = train_policy(policy, Dpo(kind="dpo", beta=0.3, loss=loss), None, examples, tiny_job(tmp_path / "ours"))

    arguments = DPOConfig(**settings(tmp_path / "trl"), beta=0.3, loss_type=[loss], disable_dropout=True)
    trl = DPOTrainer(
        model=tiny_model("llama"),
        ref_model=tiny_model("llama"),
        args=arguments,
        train_dataset=conversational("chosen", "rejected"),
        processing_class=tiny_tokenizer(),
    )
    for row, example in zip(trl.train_dataset, examples, strict=True):
        assert row["prompt_ids"] == example.group.prompt
        assert [row["chosen_ids"], row["rejected_ids"]] == example.group.responses
    trl.train()
    assert_same_curve(trained.log, trl.state.log_history)
    theirs = [entry for entry in trl.state.log_history if "loss" in entry]
    for step, (entry, their_entry) in enumerate(zip(trained.log, theirs, strict=True)):
        # At first policy and reference are one, and which reward is the larger one is a matter of rounding.
        late = ("rewards/accuracies",) if step else ()
        for name in ("rewards/chosen", "rewards/rejected", "rewards/margins", "logps/chosen", "logps/rejected", *late):
            assert entry[name] == pytest.approx(their_entry[name], rel=1e-4, abs=1e-4), name


def test_kto(tmp_path: Path) -> None:
    """Two answers a prompt: TRL has one row for each. Its mismatched answers are set to ours, two rows of a prompt to the same."""
    policy = tiny_language_model("llama")
    examples = ranking_examples(policy.conversation, pairs(), reference=tiny_language_model("llama"), mismatched=True)
    trained = train_policy(policy, Kto(kind="kto", beta=0.3), None, examples, tiny_job(tmp_path / "ours"))

    arguments = KTOConfig(
        **{**settings(tmp_path / "trl"), "per_device_train_batch_size": 16}, beta=0.3, disable_dropout=True, max_length=None
    )
    trl = KTOTrainer(
        model=tiny_model("llama"),
        ref_model=tiny_model("llama"),
        args=arguments,
        train_dataset=conversational("chosen", "rejected"),
        processing_class=tiny_tokenizer(),
    )
    others = {tuple(one.group.prompt): one.mismatched.group.responses[0] for one in examples if one.mismatched is not None}
    assert len(others) == len(examples)
    trl.train_dataset = trl.train_dataset.map(lambda row: {"KL_completion_ids": others[tuple(row["prompt_ids"])]})
    rows = {(tuple(row["prompt_ids"]), tuple(row["completion_ids"]), row["label"]) for row in trl.train_dataset}
    ours = {(tuple(one.group.prompt), tuple(ids), n == 0) for one in examples for n, ids in enumerate(one.group.responses)}
    assert rows == ours
    trl.train()
    assert_same_curve(trained.log, trl.state.log_history)
    theirs = [entry for entry in trl.state.log_history if "loss" in entry]
    assert trained.log[-1]["baseline_nats"] > 0.01  # it is part of what is compared
    for entry, their_entry in zip(trained.log, theirs, strict=True):
        assert max(entry["baseline_nats"], 0) == pytest.approx(their_entry["kl"], abs=1e-4)
        for name in ("rewards/chosen", "rewards/rejected", "rewards/margins", "logps/chosen", "logps/rejected"):
            assert entry[name] == pytest.approx(their_entry[name], rel=1e-4, abs=1e-4), name


def test_reward_model(tmp_path: Path) -> None:
    backbone = write_tiny_model(tmp_path / "backbone")
    ours = new_reward_model(ModelPointer(path=str(backbone), layout="chat"), seed=1)
    ours.model.save_pretrained(tmp_path / "untrained")
    examples = ranking_examples(ours.conversation, pairs())
    trained = train_reward_model(ours, RewardModelSettings(centering=0.05), examples, tiny_job(tmp_path / "ours"))

    trl = RewardTrainer(
        model=AutoModelForSequenceClassification.from_pretrained(tmp_path / "untrained"),
        args=RewardConfig(**settings(tmp_path / "trl"), center_rewards_coefficient=0.05),
        train_dataset=conversational("chosen", "rejected"),
        processing_class=tiny_tokenizer(),
    )
    for row, example in zip(trl.train_dataset, examples, strict=True):
        assert [row["chosen_ids"], row["rejected_ids"]] == [example.group.prompt + ids for ids in example.group.responses]
    trl.train()
    assert_same_curve(trained.log, trl.state.log_history)
    theirs = [entry for entry in trl.state.log_history if "loss" in entry]
    for entry, their_entry in zip(trained.log, theirs, strict=True):
        assert entry["margin"] == pytest.approx(their_entry["margin"], abs=1e-4)
        assert entry["accuracy"] == pytest.approx(their_entry["accuracy"])


def test_supervised(tmp_path: Path) -> None:
    policy = tiny_language_model("llama")
    demonstrations = [ranking(question, ANSWERS[n % 5]) for n, question in enumerate(QUESTIONS)]
    examples: list[Example] = ranking_examples(policy.conversation, demonstrations)
    trained = train_policy(policy, "supervised", None, examples, tiny_job(tmp_path / "ours"))

    trl = SFTTrainer(
        model=tiny_model("llama"),
        args=SFTConfig(**settings(tmp_path / "trl"), completion_only_loss=True),
        train_dataset=conversational("completion"),
        processing_class=tiny_tokenizer(),
    )
    for row, example in zip(trl.train_dataset, examples, strict=True):
        (response,) = example.group.responses
        assert row["input_ids"] == example.group.prompt + response
        assert row["labels"] == [-100] * len(example.group.prompt) + response
    trl.train()
    assert_same_curve(trained.log, trl.state.log_history)
