"""TRL's own trainers take a finished run's files unchanged, and this package reads the same files back as they were."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, load_dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer, RLOOConfig, RLOOTrainer, SFTConfig, SFTTrainer

from aligndistill.commands.export import export_run
from aligndistill.config.data import Source
from aligndistill.data.loading import load_judgments
from aligndistill.records import Ranking
from aligndistill.store.jsonl import read_jsonl
from tests.e2e.conftest import FinishedRun
from tests.e2e.small_run import read_rows


@pytest.fixture
def model(small_run: FinishedRun) -> str:
    """The folder of the run's start."""
    return str(small_run.made("start") / "model")


@pytest.fixture
def exported(small_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Path]:
    """Writes the run in a format; returns the path of the file."""
    monkeypatch.chdir(small_run.folder)

    def export(form: Any) -> Path:
        export_run(Path("runs/small"), tmp_path / "rows.jsonl", form)
        return tmp_path / "rows.jsonl"

    return export


def read(path: Path, folder: Path) -> Dataset:
    return load_dataset("json", data_files=str(path), split="train", cache_dir=str(folder / "cache"))


def settings(folder: Path) -> dict[str, Any]:
    """Two steps, on the CPU, with nothing written."""
    return {
        "output_dir": str(folder / "trainer"),
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
    }


def losses_of(trainer: Any) -> list[float]:
    """The loss of each of the two steps; gradients reached the weights."""
    trainer.train()
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(log) == 2
    assert all(entry["grad_norm"] > 0 for entry in log)
    return [entry["loss"] for entry in log]


@pytest.mark.parametrize("form", ["messages", "easydistill"])
def test_sft(exported: Callable[[Any], Path], model: str, tmp_path: Path, form: str) -> None:
    path, tokenizer = exported(form), AutoTokenizer.from_pretrained(model)
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(model), args=SFTConfig(**settings(tmp_path)), train_dataset=read(path, tmp_path)
    )
    written = [tokenizer.apply_chat_template(row["messages"], return_dict=False) for row in read_rows(path)]
    assert [row["input_ids"] for row in trainer.train_dataset] == written
    assert all(0 < loss < 2 * math.log(len(tokenizer)) for loss in losses_of(trainer))


def test_dpo(small_run: FinishedRun, model: str, tmp_path: Path) -> None:
    pairs = read(small_run.made("rankings") / "pairs.jsonl", tmp_path)
    loaded, reference = (AutoModelForCausalLM.from_pretrained(model) for _ in range(2))
    trainer = DPOTrainer(model=loaded, ref_model=reference, args=DPOConfig(**settings(tmp_path)), train_dataset=pairs)
    assert losses_of(trainer)[0] == pytest.approx(math.log(2), abs=1e-3)  # before it has learned, it is its own reference


def test_reward_model(small_run: FinishedRun, model: str, tmp_path: Path) -> None:
    pairs = read(small_run.made("rankings") / "pairs.jsonl", tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(model, num_labels=1)
    trainer = RewardTrainer(model=loaded, args=RewardConfig(**settings(tmp_path)), train_dataset=pairs)
    assert len(trainer.train_dataset) == len(pairs)
    assert all(math.isfinite(loss) for loss in losses_of(trainer))


def test_prompts_alone(exported: Callable[[Any], Path], model: str, tmp_path: Path) -> None:
    path = exported("prompts")
    answered: list[list[dict[str, str]]] = []

    def reward(prompts: list[list[dict[str, str]]], completions: list[Any], **columns: Any) -> list[float]:
        answered.extend(prompts)
        return [float(number) for number in range(len(completions))]

    trainer = RLOOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model),
        reward_funcs=reward,
        args=RLOOConfig(**settings(tmp_path), num_generations=2, max_completion_length=4),
        train_dataset=read(path, tmp_path),
    )
    losses_of(trainer)
    known = [row["prompt"] for row in read_rows(path)]
    assert answered
    assert all(prompt in known for prompt in answered)


def test_pairs_come_back_as_they_were(small_run: FinishedRun) -> None:
    folder = small_run.made("rankings")
    wanted = {
        (one.messages, better.text, worse.text, better.score, worse.score)
        for one in read_jsonl(folder / "rankings.jsonl", Ranking)
        for number, better in enumerate(one.responses)
        for worse in one.responses[number + 1 :]
        if one.split == "train" and better.score > worse.score
    }
    found = {
        (one.messages, *(answer.text for answer in one.responses), *(answer.score for answer in one.responses))
        for one in load_judgments(Source(path=str(folder / "pairs.jsonl")))
    }
    assert wanted
    assert found == wanted
