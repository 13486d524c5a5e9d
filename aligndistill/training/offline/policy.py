"""Training a policy on rankings, or on demonstrations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from aligndistill.config.models import Lora
from aligndistill.config.offline_objectives import BestOfN, Cpo, Dpo, Kto, OfflineObjective, Orpo, Pro, Rrhf, Simpo, Sppo
from aligndistill.models.groups import GroupedBatch
from aligndistill.models.load import LanguageModel
from aligndistill.models.logprobs import token_logprobs
from aligndistill.objectives.best_of_n import best_of_n
from aligndistill.objectives.cpo import cpo
from aligndistill.objectives.dpo import dpo
from aligndistill.objectives.inputs import Loss, Ranked
from aligndistill.objectives.kto import kto
from aligndistill.objectives.orpo import orpo
from aligndistill.objectives.pro import pro
from aligndistill.objectives.rrhf import rrhf
from aligndistill.objectives.simpo import simpo
from aligndistill.objectives.sppo import sppo
from aligndistill.objectives.supervised import step_by_step, supervised
from aligndistill.processes.progress import say
from aligndistill.processes.ranks import is_main_process
from aligndistill.training.adapters import with_adapters
from aligndistill.training.fit import Trained, TrainingJob
from aligndistill.training.offline.examples import Collator, Example, MicroBatch
from aligndistill.training.offline.mismatched import baseline_of_step, with_weights
from aligndistill.training.offline.trainer import MeanOfStep, _train, prompts, tokens


@dataclass(frozen=True)
class StepByStep:
    """Demonstrations of two tasks, told apart by their scores: 1 for a rationale, 0 for an answer.

    Attributes:
        rationale_weight: see `objectives.supervised.step_by_step`.
    """

    rationale_weight: float


def train_policy(
    policy: LanguageModel,
    objective: OfflineObjective | StepByStep | Literal["supervised"],
    lora: Lora | None,
    examples: Sequence[Example],
    job: TrainingJob,
) -> Trained:
    """Train a policy by an objective on rankings, or on demonstrations (rankings of one response)."""
    mean_of_step: MeanOfStep | None = None
    if isinstance(objective, Kto):
        objective, mean_of_step = with_weights(objective, examples), baseline_of_step(policy.conversation.pad_id)
        weights = f"{objective.desirable_weight:.3g} (desirable), {objective.undesirable_weight:.3g} (undesirable)"
        if is_main_process():
            say(f"  {job.name}: weights of answers {weights}")
    if isinstance(objective, StepByStep):
        mean_of_step = rationale_share

    def loss_of_batch(model: Any, batch: GroupedBatch, tensors: MicroBatch) -> Loss:
        logprobs_BKR = token_logprobs(model, batch, tensors["share"])
        ranked = Ranked(
            policy_BK=logprobs_BKR.sum(-1),
            reference_BK=tensors.get("reference_BK"),
            scores_BK=tensors["scores_BK"],
            lengths_BK=batch.lengths_BK,
            valid_BK=batch.valid_BK,
            baseline_nats=tensors.get("mean_of_step") if isinstance(objective, Kto) else None,
        )
        if isinstance(objective, StepByStep):
            return step_by_step(ranked, objective.rationale_weight, tensors["mean_of_step"])
        return supervised(ranked) if objective == "supervised" else objective_loss(objective, ranked)

    collator = Collator(policy.conversation.pad_id, policy.shares, policy.shares_prompt)
    model = with_adapters(policy.model, lora, "CAUSAL_LM", job.seed)
    weight = tokens if objective == "supervised" or isinstance(objective, StepByStep) else prompts
    return _train(model, policy.conversation.tokenizer, loss_of_batch, weight, collator, examples, job, mean_of_step)


def rationale_share(model: Any, examples: Sequence[Example], counted: int, batches: int, device: torch.device) -> Tensor:
    """(tokens of rationales, all response tokens) of a process's examples of an optimiser step: see `MeanOfStep`."""
    lengths = [(len(one.group.responses[0]), one.scores[0]) for one in examples[:counted]]
    of_rationales = sum(length * score for length, score in lengths)
    return torch.tensor([of_rationales, sum(length for length, _ in lengths)], dtype=torch.float64, device=device)


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
                sft_weight=objective.sft_weight,
            )
        case Rrhf():
            return rrhf(ranked, sft_weight=objective.sft_weight)
        case Pro():
            return pro(ranked, sft_weight=objective.sft_weight)
        case BestOfN():
            return best_of_n(ranked)
        case Simpo():
            return simpo(
                ranked,
                beta=objective.beta,
                gamma_beta_ratio=objective.gamma_beta_ratio,
                labels=objective.labels,
                sft_weight=objective.sft_weight,
            )
        case Cpo():
            return cpo(ranked, beta=objective.beta, labels=objective.labels, sft_weight=objective.sft_weight)
        case Orpo():
            return orpo(ranked, odds_weight=objective.odds_weight, labels=objective.labels)
        case Kto():
            desirable, undesirable = objective.desirable_weight, objective.undesirable_weight
            assert desirable != "auto" and undesirable != "auto", "see `with_weights`"
            return kto(
                ranked,
                beta=objective.beta,
                labels=objective.labels,
                margin=objective.margin or 0.0,
                desirable_weight=desirable,
                undesirable_weight=undesirable,
            )
        case Sppo():
            return sppo(ranked, eta=objective.eta)
