"""PPO on a model of a few thousand parameters, and everything that a test may want to see of it afterwards."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aligndistill.config.models import Lora
from aligndistill.config.objectives import Ppo
from aligndistill.models.actor_critic import critic_from_backbone
from aligndistill.models.load import LanguageModel, ModelPointer
from aligndistill.training.fit import Trained
from aligndistill.training.on_policy.collecting import PpoWork
from aligndistill.training.on_policy.ppo import train_ppo
from aligndistill.training.on_policy.rollouts import PolicyPrompt, Rollout, SampledPrompt
from aligndistill.training.on_policy.weight_sync import ServedRollouts
from tests.tiny_models import QUESTIONS, tiny_job, tiny_language_model, user, write_tiny_model

Score = Callable[[Sequence[SampledPrompt]], list[list[float | None]]]


def vowels(asked: Sequence[SampledPrompt]) -> list[list[float | None]]:
    """What the tests pay for: every vowel."""
    return [[float(sum(text.count(vowel) for vowel in "aeiou")) for text in one.texts] for one in asked]


@dataclass
class Ran:
    """A finished run: its result, the rollouts of every update, and what was asked of the reward."""

    trained: Trained
    rollouts: list[list[Rollout]] = field(default_factory=list)

    @property
    def weights(self) -> dict[str, Any]:
        """What was trained."""
        model = self.trained.trainer.model
        return {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}


def policy_prompts(policy: LanguageModel, questions: Sequence[str] = QUESTIONS) -> list[PolicyPrompt]:
    return [PolicyPrompt(str(n), user(text), policy.conversation.prompt_ids(user(text))) for n, text in enumerate(questions)]


def tiny_ppo(
    folder: Path,
    *,
    updates: int = 2,
    score: Score = vowels,
    lora: Lora | None = None,
    policy: LanguageModel | None = None,
    backbone: Path | None = None,
    critic_dtype: str = "float32",
    reference: LanguageModel | None = None,
    win_rate: Callable[[LanguageModel], float] | None = None,
    served: ServedRollouts | None = None,
    runtime: dict[str, Any] | None = None,
    job: dict[str, Any] | None = None,
    **settings: Any,
) -> Ran:
    """Eight questions, three answers of up to eight tokens each, two passes over each update's answers."""
    objective = Ppo(**{"kind": "ppo", "critic": "shared", "samples_per_prompt": 3, "ppo_epochs": 2, **settings})
    policy = policy or tiny_language_model()
    critic = None
    if objective.critic == "separate":
        backbone = backbone or write_tiny_model(folder / f"backbone-{os.environ.get('RANK', 0)}")
        critic = critic_from_backbone(ModelPointer(path=str(backbone), layout="chat", dtype=critic_dtype), seed=0)
    rollouts: list[list[Rollout]] = []
    work = PpoWork(
        prompts=policy_prompts(policy),
        reference=(reference or tiny_language_model()) if lora is None else None,
        score=score,
        win_rate=win_rate,
        keep_samples=lambda update, found: rollouts.append(list(found)),
        served=served,
    )
    steps = {"batch_size": 8 // objective.minibatches, "max_steps": updates * objective.steps_per_update, "max_response_tokens": 8}
    trained = train_ppo(
        policy, critic, objective, lora, work, tiny_job(folder / "job", runtime=runtime, **{**steps, **(job or {})})
    )
    return Ran(trained, rollouts)
