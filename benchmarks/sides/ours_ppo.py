"""PPO by this project, through the functions its own stage calls."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aligndistill.config.objectives import Ppo
from aligndistill.config.run import Runtime
from aligndistill.config.students import Student
from aligndistill.models.actor_critic import critic_from_reward_model
from aligndistill.models.load import ModelPointer, load_language_model
from aligndistill.records import Message, prompt_id
from aligndistill.stages.context import StageContext
from aligndistill.stages.rewards import open_rewards
from aligndistill.training.fit import TrainingJob
from aligndistill.training.on_policy.collecting import PpoWork
from aligndistill.training.on_policy.ppo import train_ppo
from aligndistill.training.on_policy.rollouts import PolicyPrompt, Rollout
from benchmarks.probe import Clock, Memory, logged, training_round, watch_every_trainer
from benchmarks.worlds import read_rows, words

watch_every_trainer()


def train(world: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """One training from the world's policy and reward model."""
    memory = Memory()
    policy_at = ModelPointer(path=str(world / "policy"), layout="plain", dtype="float32")
    reward_at = ModelPointer(path=str(world / "reward"), layout="plain", dtype="float32")
    prompts_per_update = settings["episodes"] // settings["samples_per_prompt"]
    batch = prompts_per_update // settings["minibatches"]
    objective = Ppo(
        kind="ppo",
        samples_per_prompt=settings["samples_per_prompt"],
        ppo_epochs=settings["ppo_epochs"],
        minibatches=settings["minibatches"],
        temperature=1.0,
        kl_coefficient=settings["kl_coefficient"],
        missing_eos_penalty=0.0,
        gamma=1.0,
        gae_lambda=0.95,
        clip_range=0.2,
        value_clip_range=0.2,
        value_coefficient=0.1,
        critic=settings.get("critic", "separate"),
    )
    student = Student(
        objective=objective,
        learning_rate=settings["learning_rate"],
        lr_scheduler_type="constant",
        warmup_ratio=0.0,
        max_grad_norm=1e9,  # TRL's PPO loop does not clip
        batch_size=batch,
        max_steps=settings["updates"] * objective.steps_per_update,
        max_prompt_tokens=4096,
        max_response_tokens=settings["response_tokens"],
    )
    runtime = Runtime(
        per_device_train_batch_size=batch, per_device_eval_batch_size=prompts_per_update, save_steps=10**6, logging_steps=1
    )
    policy = load_language_model(policy_at)
    critic = critic_from_reward_model(reward_at) if objective.critic == "separate" else None
    prompts = []
    for row in read_rows(world / "rows.jsonl"):
        messages = (Message(role="user", content=words(row["prompt"])),)
        prompts.append(PolicyPrompt(prompt_id(messages), messages, policy.conversation.prompt_ids(messages)))
    assert [prompt.ids for prompt in prompts] == [row["prompt"] for row in read_rows(world / "rows.jsonl")]
    kept: list[Rollout] = []
    with tempfile.TemporaryDirectory() as scratch:
        reward_at.write(Path(scratch))
        context = StageContext("benchmark", Path(scratch), Path(scratch), runtime)
        ppo_work = PpoWork(
            prompts=prompts,
            reference=load_language_model(policy_at),
            score=open_rewards(context, objective.rewards, {}, Path(scratch), 0),
            win_rate=None,
            keep_samples=lambda update, rollouts: kept.extend(rollouts),
        )
        Clock.reset()
        train_ppo(
            policy,
            critic,
            objective,
            None,
            ppo_work,
            TrainingJob("ppo", student, runtime, Path(scratch) / "checkpoints", settings["round"]),
        )
    if settings.get("rollouts"):
        _write_rollouts(kept, world / settings["rollouts"])
    every = objective.steps_per_update
    return training_round(
        settings["warm_up"],
        memory,
        settings["episodes"],
        every,
        scores=logged("score"),
        elapsed=[end - Clock.start for end in Clock.ends[every - 1 :: every]],
        response_tokens=logged("length_tokens"),
        policy_losses=logged("policy_loss"),
        value_losses=logged("value_loss"),
    )


def same_rollouts(world: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """One update, whose answers are written down for the peer to learn from; its losses in the place of a curve."""
    found = train(world, settings)
    return {**found, "seconds": [found["elapsed"][0]], "losses": found["policy_losses"] + found["value_losses"]}


def _write_rollouts(rollouts: Sequence[Rollout], path: Path) -> None:
    path.write_text(json.dumps([{"prompt": one.prompt.ids, "responses": one.responses, "scores": one.scores} for one in rollouts]))
