"""Training on rankings: one function for the reward model, and one for every student and supervised start."""

from collections.abc import Sequence
from typing import Any, Literal

import torch

from aligndistill.config import BestOfN, Dpo, Lora, OfflineObjective, Pro, Rrhf
from aligndistill.config import RewardModel as RewardModelSettings
from aligndistill.models.groups import GroupedBatch
from aligndistill.models.load import LanguageModel
from aligndistill.models.logprobs import token_logprobs
from aligndistill.models.reward import RewardModel, rewards
from aligndistill.objectives.best_of_n import best_of_n
from aligndistill.objectives.bradley_terry import bradley_terry
from aligndistill.objectives.dpo import dpo
from aligndistill.objectives.pro import pro
from aligndistill.objectives.ranked import Loss, Ranked
from aligndistill.objectives.rrhf import rrhf
from aligndistill.objectives.supervised import supervised
from aligndistill.training.arguments import training_arguments, within_tokens
from aligndistill.training.examples import Collator, Example, Examples, MicroBatch
from aligndistill.training.grouped_trainer import GroupedTrainer, LossOfBatch, WeightOfBatch, prompts, tokens
from aligndistill.training.job import Job, Trained, run


def train_policy(
    policy: LanguageModel,
    objective: OfflineObjective | Literal["supervised"],
    lora: Lora | None,
    examples: Sequence[Example],
    job: Job,
) -> Trained:
    """Train a policy by an objective on rankings, or on demonstrations (rankings of one response)."""

    def loss_of_batch(model: Any, batch: GroupedBatch, tensors: MicroBatch) -> Loss:
        logprobs_BKR = token_logprobs(model, batch, tensors["share"])
        ranked = Ranked(
            policy_BK=logprobs_BKR.sum(-1),
            reference_BK=tensors.get("reference_BK"),
            scores_BK=tensors["scores_BK"],
            lengths_BK=batch.lengths_BK,
            valid_BK=batch.valid_BK,
        )
        return supervised(ranked) if objective == "supervised" else objective_loss(objective, ranked)

    collator = Collator(policy.conversation.pad_id, policy.shares, policy.shares_prompt)
    model = with_adapters(policy.model, lora, "CAUSAL_LM", job.seed)
    weight = tokens if objective == "supervised" else prompts
    return _train(model, policy.conversation.tokenizer, loss_of_batch, weight, collator, examples, job)


def train_reward_model(reward_model: RewardModel, settings: RewardModelSettings, examples: Sequence[Example], job: Job) -> Trained:
    """Train a reward model by Bradley-Terry on rankings."""

    def loss_of_batch(model: Any, batch: GroupedBatch, tensors: MicroBatch) -> Loss:
        return bradley_terry(
            rewards(model, batch, tensors["share"]),
            tensors["scores_BK"],
            batch.valid_BK,
            labels=settings.labels,
            margin=settings.margin,
            centering=settings.centering,
        )

    collator = Collator(reward_model.conversation.pad_id, reward_model.shares, reward_model.shares_prompt)
    model = with_adapters(reward_model.model, settings.lora, "SEQ_CLS", job.seed)
    return _train(model, reward_model.conversation.tokenizer, loss_of_batch, prompts, collator, examples, job)


def objective_loss(objective: OfflineObjective, ranked: Ranked) -> Loss:
    """The configured objective's loss."""
    match objective:
        case Dpo():
            return dpo(
                ranked,
                beta=objective.beta,
                loss=objective.loss,
                labels=objective.labels,
                label_smoothing=objective.label_smoothing,
            )
        case Rrhf():
            return rrhf(ranked, sft_weight=objective.sft_weight)
        case Pro():
            return pro(ranked, sft_weight=objective.sft_weight)
        case BestOfN():
            return best_of_n(ranked)


def needs_reference(objective: OfflineObjective) -> bool:
    """Whether an objective compares the policy with a frozen reference."""
    return isinstance(objective, Dpo)


def with_adapters(model: Any, lora: Lora | None, task: str, seed: int) -> Any:
    """The model itself, or peft's wrapper of it with new low-rank adapters, which follow from the seed alone."""
    if lora is None:
        return model
    from peft import LoraConfig, get_peft_model  # only here: importing peft takes a second

    torch.manual_seed(seed)  # else what was trained earlier in this process would show in them
    target = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
    return get_peft_model(
        model,
        LoraConfig(r=lora.r, lora_alpha=lora.lora_alpha, lora_dropout=lora.lora_dropout, target_modules=target, task_type=task),
    )


def _train(
    model: Any,
    tokenizer: Any,
    loss_of_batch: LossOfBatch,
    weight_of_batch: WeightOfBatch,
    collator: Collator,
    examples: Sequence[Example],
    job: Job,
) -> Trained:
    runtime = job.runtime
    if runtime.max_tokens_per_batch is not None:  # else nobody asks for the longest, which takes reading them all
        runtime = within_tokens(runtime, max(map(collator.row_tokens, examples), default=1))
    trainer = GroupedTrainer(
        loss_of_batch,
        weight_of_batch,
        model=model,
        args=training_arguments(job.settings, runtime, job.folder, job.name, job.seed),
        train_dataset=Examples(examples),
        collator=collator,
        processing_class=tokenizer,
    )
    return run(trainer, job)
