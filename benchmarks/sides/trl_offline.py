"""DPO, the reward model and supervised fine-tuning by TRL 1.16's trainers."""

import shutil
import tempfile
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

from benchmarks.probe import Clock, Memory, now, training_round, watch_every_trainer
from benchmarks.worlds import read_rows, words

watch_every_trainer()

precomputing_seconds: list[float] = []
"""How long each call of DPOTrainer's precompute pass took."""

_precompute = DPOTrainer._precompute_ref_logps


def _timed_precompute(self: Any, *args: Any, **kwargs: Any) -> Any:
    started = now()
    found = _precompute(self, *args, **kwargs)
    precomputing_seconds.append(now() - started)
    return found


DPOTrainer._precompute_ref_logps = _timed_precompute


def trainer_arguments(settings: dict[str, Any], folder: str, per_prompt: int = 1) -> dict[str, Any]:
    """What both sides share, and TRL's best settings on this machine unless its `defaults` are asked for."""
    tuned = {"bf16": torch.cuda.is_available(), "gradient_checkpointing": False}
    return {
        "output_dir": folder,
        "use_cpu": not torch.cuda.is_available(),
        "optim": "adamw_torch_fused" if torch.cuda.is_available() else "adamw_torch",
        "learning_rate": settings["learning_rate"],
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "max_grad_norm": 1.0,
        "per_device_train_batch_size": settings["batch"] * per_prompt,
        "max_steps": settings.get("steps", -1),
        "max_length": None,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "seed": 0,
        **({} if settings.get("defaults") else tuned),
    }


def preferences(rows: list[dict[str, Any]], number: int) -> Dataset:
    """As text, since DPOTrainer tokenises itself; the round's number keeps TRL's cache of an earlier round out."""
    return Dataset.from_list(
        [
            {
                "prompt": words(row["prompt"]),
                "chosen": " " + words(row["responses"][0][:-1]),
                "rejected": " " + words(row["responses"][1][:-1]),
                "round": number,
            }
            for row in rows
        ]
    )


def dpo(world: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """One training by DPOTrainer, with the reference computed live or, where the settings say `precompute`, in advance.

    The time of the precomputing pass is included in the time of the steps that use it, as on our side.
    """
    memory = Memory()
    rows = read_rows(world / "rows.jsonl")
    precompute = bool(settings.get("precompute"))
    precomputing_seconds.clear()
    with tempfile.TemporaryDirectory() as folder:
        arguments = DPOConfig(
            **trainer_arguments(settings, folder),
            beta=settings["options"]["beta"],
            precompute_ref_log_probs=precompute,
            **({"precompute_ref_batch_size": settings["batch"]} if precompute else {}),
        )
        dtype = settings.get("dtype", "float32")
        models: dict[str, Any] = {"model": AutoModelForCausalLM.from_pretrained(world / "policy", dtype=dtype)}
        if "lora" in settings:
            from peft import LoraConfig  # only here: what else is measured with this environment does without

            lora = LoraConfig(**settings["lora"], target_modules="all-linear", task_type="CAUSAL_LM")
            models["peft_config"] = lora  # the reference is the model without its adapters
        elif not precompute:
            models["ref_model"] = AutoModelForCausalLM.from_pretrained(world / "policy", dtype=dtype)
        data, tokenizer = preferences(rows, settings["round"]), AutoTokenizer.from_pretrained(world / "policy")
        torch.manual_seed(0)  # the adapters follow from it, as on our side
        trainer = DPOTrainer(**models, args=arguments, train_dataset=data, processing_class=tokenizer)
        for row, ours in zip(trainer.train_dataset, rows, strict=True):
            assert [row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]] == [ours["prompt"], *ours["responses"]]
        Clock.reset()
        trainer.train()
    result = training_round(settings["warm_up"], memory, settings["batch"], reference_seconds=sum(precomputing_seconds))
    if settings.get("whole"):
        whole = sum(precomputing_seconds) + Clock.ends[-1] - Clock.start
        return {**result, "seconds": [whole], "samples": settings["batch"] * settings["steps"]}
    charged = sum(precomputing_seconds) / settings["steps"]
    return {**result, "seconds": [seconds + charged for seconds in result["seconds"]]}


def reward_model(world: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """One training by RewardTrainer on every pair of each ranking, a ranking's pairs in one batch."""
    memory = Memory()
    rows = read_rows(world / "rows.jsonl")
    pairs = [
        {"chosen_ids": row["prompt"] + better, "rejected_ids": row["prompt"] + worse}
        for row in rows
        for better, worse in combinations(row["responses"], 2)
    ]
    with tempfile.TemporaryDirectory() as folder:
        trainer = RewardTrainer(
            model=AutoModelForSequenceClassification.from_pretrained(world / "reward", dtype="float32"),
            args=RewardConfig(**trainer_arguments(settings, folder, per_prompt=len(pairs) // len(rows))),
            train_dataset=Dataset.from_list(pairs),
            processing_class=AutoTokenizer.from_pretrained(world / "reward"),
        )
        Clock.reset()
        trainer.train()
    return training_round(settings["warm_up"], memory, settings["batch"])


def supervised(world: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """One training by SFTTrainer on the first responses, loss on the responses alone."""
    memory = Memory()
    rows = [
        {
            "input_ids": row["prompt"] + row["responses"][0],
            "completion_mask": [0] * len(row["prompt"]) + [1] * len(row["responses"][0]),
        }
        for row in read_rows(world / "rows.jsonl")
    ]
    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            model=AutoModelForCausalLM.from_pretrained(world / "policy", dtype="float32"),
            args=SFTConfig(**trainer_arguments(settings, folder), completion_only_loss=True),
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(world / "policy"),
        )
        Clock.reset()
        trainer.train()
    return training_round(settings["warm_up"], memory, settings["batch"])


def reference_cache(world: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Reference log-probs after 10 % more rows: the time of the precompute pass of the second trainer."""
    memory = Memory()
    rows = read_rows(world / "rows.jsonl")
    sums: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        arguments = DPOConfig(
            **trainer_arguments(settings, folder), precompute_ref_log_probs=True, precompute_ref_batch_size=settings["batch"]
        )
        for count in (round(len(rows) / 1.1), len(rows)):
            # From a file, so that the cache is on disk as it is for a user.
            data = Path(folder) / f"data-{count}"
            preferences(rows[:count], settings["round"]).save_to_disk(str(data))
            precomputing_seconds.clear()
            trainer = DPOTrainer(
                model=AutoModelForCausalLM.from_pretrained(world / "policy", dtype="float32"),
                args=arguments,
                train_dataset=Dataset.load_from_disk(str(data)),
                processing_class=AutoTokenizer.from_pretrained(world / "policy"),
            )
            found = trainer.train_dataset
            sums = [float(sum(found[name])) for name in ("ref_chosen_logps", "ref_rejected_logps")]
            shutil.rmtree(data, ignore_errors=True)
    return {"seconds": precomputing_seconds[-1:], "samples": len(rows), "added_bytes": memory.added_bytes(), "losses": sums}
