"""PPO by TRL 1.12's `experimental.ppo.PPOTrainer`."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.probe import Clock, Memory, logged, training_round, watch_every_trainer
from benchmarks.worlds import read_rows

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

import torch
from datasets import Dataset
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

watch_every_trainer()


def train(world: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """One training from the world's policy and reward model."""
    memory = Memory()
    tokenizer = AutoTokenizer.from_pretrained(world / "policy", padding_side="left")
    rows = [
        {"input_ids": row["prompt"]}
        for row in settings.get("prompts", read_rows(world / "rows.jsonl"))
        for _ in range(settings["samples_per_prompt"])
    ]
    own = {} if settings.get("defaults") else {"bf16": False, "gradient_checkpointing": False}
    with tempfile.TemporaryDirectory() as scratch:
        arguments = PPOConfig(
            output_dir=scratch,
            use_cpu=not torch.cuda.is_available(),
            optim="adamw_torch",
            learning_rate=settings["learning_rate"],
            lr_scheduler_type="constant",
            adam_epsilon=1e-5,
            # More than one accumulation step would also delay the optimiser's, whatever num_mini_batches says.
            per_device_train_batch_size=settings["episodes"],
            gradient_accumulation_steps=1,
            num_mini_batches=settings["minibatches"],
            num_ppo_epochs=settings["ppo_epochs"],
            total_episodes=settings["episodes"] * settings["updates"],
            local_rollout_forward_batch_size=settings["episodes"],
            num_sample_generations=0,
            response_length=settings["response_tokens"],
            stop_token="eos",
            temperature=1.0,
            kl_coef=settings["kl_coefficient"],
            seed=settings["round"],
            save_strategy="no",
            logging_steps=1,
            report_to="none",
            disable_tqdm=True,
            **own,
        )
        reward, value = (AutoModelForSequenceClassification.from_pretrained(world / "reward", dtype="float32") for _ in range(2))
        trainer = PPOTrainer(
            args=arguments,
            processing_class=tokenizer,
            model=AutoModelForCausalLM.from_pretrained(world / "policy", dtype="float32"),
            ref_model=AutoModelForCausalLM.from_pretrained(world / "policy", dtype="float32"),
            reward_model=reward,
            value_model=value,
            train_dataset=Dataset.from_list(rows),
            eval_dataset=Dataset.from_list(rows[: settings["episodes"]]),
        )
        if "prepare" in settings:
            settings["prepare"](trainer)
        Clock.reset()
        trainer.train()
    return training_round(
        settings["warm_up"],
        memory,
        settings["episodes"],
        scores=logged("objective/scores"),
        elapsed=[end - Clock.start for end in Clock.ends],
        policy_losses=logged("loss/policy_avg"),
        value_losses=logged("loss/value_avg"),
    )


def same_rollouts(world: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """One update on the answers that the other side sampled.

    Patched for this comparison alone: generation gives those answers, and advantages are whitened by the population's variance as
    ours are, not by the sample's.
    """
    rollouts = json.loads((world / settings["rollouts"]).read_text())
    answers = {tuple(one["prompt"]): one["responses"][0] for one in rollouts}
    norms: list[float] = []

    @torch.no_grad()
    def given(model: Any, queries: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
        rows = torch.tensor([query + answers[tuple(query)] for query in queries.tolist()])
        return rows, model(input_ids=rows, use_cache=False).logits[:, queries.shape[1] - 1 : -1]

    def watch_norm(trainer: Any) -> None:
        step = trainer.optimizer.step

        def step_and_tell() -> None:
            gradients = [one.grad for one in trainer.model.parameters() if one.grad is not None]
            norms.append(float(torch.stack([gradient.norm() for gradient in gradients]).norm()))
            step()

        trainer.optimizer.step = step_and_tell

    def whitened(values: Tensor, mask: Tensor, shift_mean: bool = True) -> Tensor:
        mean = ppo_trainer.masked_mean(values, mask)
        return (values - mean) * torch.rsqrt(ppo_trainer.masked_var(values, mask, unbiased=False) + 1e-8)

    ppo_trainer.batch_generation, ppo_trainer.masked_whiten = given, whitened
    found = train(world, {**settings, "prompts": rollouts, "prepare": watch_norm})
    assert abs(found["scores"][0] - sum(one["scores"][0] for one in rollouts) / len(rollouts)) < 1e-4, "the same reward model"
    losses = found["policy_losses"] + found["value_losses"]
    return {**found, "seconds": [found["elapsed"][0]], "losses": losses, "gradient_norms": norms[-1:]}
