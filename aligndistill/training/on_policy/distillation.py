"""On-policy distillation: the student answers, and a frozen teacher, beside it or on a server, reads the same tokens.

An update is one step of the offline trainer, whose examples are written when the step asks for them. Everything else is as in
off-policy distillation: the comparison of logits chunk by chunk, micro-batches of similar length, and a mean over the tokens of the
optimiser step, which are counted after sampling. (TRL's GKD counts those of its data set's own answers, before.) The samples depend
on the seed, the update's number and the prompt, so a checkpoint needs no state of its own.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from aligndistill.config.models import Lora
from aligndistill.config.objectives import OnPolicyDistil
from aligndistill.models.groups import GroupedBatch, TokenGroup
from aligndistill.models.load import LanguageModel
from aligndistill.models.logprobs import Beside, logprobs_beside
from aligndistill.models.sampling import Sampled
from aligndistill.objectives.distil import Distilled, distil
from aligndistill.objectives.divergences import FIDELITY, fidelity, gradient_scale
from aligndistill.objectives.inputs import Loss
from aligndistill.objectives.on_policy_distil import sampled_reverse_kl
from aligndistill.processes.progress import say
from aligndistill.training.adapters import with_adapters, without_dropout
from aligndistill.training.arguments import training_arguments, within_tokens
from aligndistill.training.fit import Trained, TrainingJob, fit
from aligndistill.training.offline.distillation import LiveTeacher, beside, collator_for_both
from aligndistill.training.offline.examples import Collator, Example, Examples, MicroBatch
from aligndistill.training.offline.trainer import GroupedTrainer, tokens
from aligndistill.training.on_policy.health import new_warnings
from aligndistill.training.on_policy.kl_budget import BudgetSpent, KlBudget, inside_the_budget, keeping_checkpoints
from aligndistill.training.on_policy.rollouts import (
    PolicyPrompt,
    RolloutSettings,
    gathered_weights,
    groups_of,
    longest_row,
    rollout_settings,
    sample_rollouts,
)
from aligndistill.training.on_policy.served_teacher import ReadCollator, ServedTeacher, loss_by_logprobs

KeepSamples = Callable[[int, Sequence[PolicyPrompt], Sequence[Sequence[Sampled]]], None]
"""Called with every update's number, and the main process's prompts and answers."""


def train_on_own_answers(
    policy: LanguageModel,
    teacher: LiveTeacher | ServedTeacher,
    objective: OnPolicyDistil,
    lora: Lora | None,
    prompts: Sequence[PolicyPrompt],
    keep_samples: KeepSamples,
    job: TrainingJob,
    reference: LanguageModel | None = None,
) -> Trained:
    """Train a policy on a teacher's distributions over the tokens of its own answers.

    Args:
        reference: what `kl_budget` measures KL from; None for the policy with its adapters disabled.

    Raises:
        TrainingError: `kl_budget` was exceeded before the first checkpoint.
    """
    policy = LanguageModel(
        with_adapters(policy.model, without_dropout(lora), "CAUSAL_LM", job.seed), policy.conversation, policy.shares_prompt
    )
    collator: Collator = ReadCollator(policy.conversation.pad_id, policy.shares, policy.shares_prompt)
    if isinstance(teacher, LiveTeacher):
        collator = collator_for_both(policy, teacher.model)
    row = longest_row(prompts, objective, job, collator.shares_prompt)
    budget = None
    if objective.kl_budget is not None:
        budget = KlBudget(objective.kl_budget, reference)
        passes = -(-len(prompts) // job.settings.batch_size) * job.settings.num_train_epochs
        job = keeping_checkpoints(job, job.settings.max_steps if job.settings.max_steps > 0 else int(passes))
    arguments = training_arguments(job.settings, within_tokens(job.runtime, row), job.folder, job.name, job.seed)
    arguments.logging_steps = 1

    def loss_of_batch(model: Any, batch: GroupedBatch, tensors: MicroBatch) -> Loss:
        return _loss(model, teacher, objective, batch, tensors)

    trainer = OnPolicyDistilTrainer(
        objective,
        policy,
        teacher,
        rollout_settings(objective, job),
        keep_samples,
        budget,
        loss_of_batch=loss_of_batch,
        weight_of_batch=tokens,
        collator=collator,
        teacher=teacher.sharded if isinstance(teacher, LiveTeacher) else None,
        model=policy.model,
        args=arguments,
        train_dataset=Examples(prompts),
        processing_class=policy.conversation.tokenizer,
    )
    try:
        trained = fit(trainer, job)
        trainer.require_budget(prompts[: job.settings.batch_size])
        return trained
    except BudgetSpent as spent:
        assert budget is not None
        return inside_the_budget(trainer, job, budget.nats, spent)


class OnPolicyDistilTrainer(GroupedTrainer):
    """Answers the prompts of a step with the weights before it, and trains on the answers once.

    Args:
        policy: how the student reads conversations; its weights are the trained ones.
        taught_by: decides which part of an answer can be read; one on a server reads it before the step.
        sampling: how the student samples; its batch size counts prompts.
        budget: ends the training when the student's KL from its reference is above it.
    """

    def __init__(
        self,
        objective: OnPolicyDistil,
        policy: LanguageModel,
        taught_by: LiveTeacher | ServedTeacher,
        sampling: RolloutSettings,
        keep_samples: KeepSamples,
        budget: KlBudget | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._objective, self._policy, self._taught_by = objective, policy, taught_by
        self._sampling, self._keep_samples, self._budget = sampling, keep_samples, budget
        if budget is not None:
            budget.shard(self.accelerator)

    def examples_of_step(self, given: list[Any], counts: bool) -> list[Example]:
        """The prompts of a step with the student's answers, each up to the first token that the teacher cannot read."""
        started, update = time.monotonic(), self.state.global_step
        drawn, kl_nats = self._answers(given, update)
        if self._budget is not None:
            self._budget.require(update, kl_nats if counts else [])
        if self.accelerator.is_main_process:
            self._keep_samples(update, given, drawn)
        written = time.monotonic()
        answers = [one for samples in drawn for one in samples]
        read = [[self._taught_by.readable(one.ids) for one in samples] for samples in drawn]
        examples = [Example(TokenGroup(prompt.ids, rows), [0.0] * len(rows)) for prompt, rows in zip(given, read, strict=True)]
        seen = {
            "length_tokens": [len(one.ids) for one in answers],
            "eos_rate": [one.finish == "stop" for one in answers],
            "unreadable": [
                len(ids) < len(one.ids)
                for samples, rows in zip(drawn, read, strict=True)
                for one, ids in zip(samples, rows, strict=True)
            ],
            "rollout_seconds": [written - started],
        }
        if self._budget is not None:
            seen["kl_k1_nats"] = kl_nats
        if isinstance(self._taught_by, ServedTeacher):
            examples = self._taught_by.read(examples)
            seen["teacher_seconds"] = [time.monotonic() - written]
        self.count_metrics({name: torch.tensor(of if counts else [], device=self.args.device).float() for name, of in seen.items()})
        return examples

    def require_budget(self, prompts: Sequence[PolicyPrompt]) -> None:
        """Compare the policy after the last update with its `kl_budget`, by additional answers; all earlier ones were.

        Raises:
            BudgetSpent: its KL is above the budget.
        """
        if self._budget is None:
            return
        ours = prompts[self.accelerator.process_index :: self.accelerator.num_processes]
        self._budget.require(self.state.global_step, self._answers(ours, self.state.global_step)[1])

    def _answers(self, given: Sequence[PolicyPrompt], update: int) -> tuple[list[list[Sampled]], list[float]]:
        """The policy's answers and, with a budget, log(policy / reference) of each."""
        self.model.eval()
        with gathered_weights(self), self.accelerator.autocast():
            drawn = sample_rollouts(self._policy, given, [f"{update} {prompt.id}" for prompt in given], self._sampling)
            if self._budget is None:
                return drawn, []
            return drawn, self._budget.kl_nats(self._policy, groups_of(given, drawn), self._sampling)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log an update under its number."""
        if "loss" in logs:
            logs["update"] = self.state.global_step
        super().log(logs, start_time)
        if "update" in logs and self.accelerator.is_main_process:
            for warning in new_warnings(self.state.log_history, self._objective):
                say(f"  update {logs['update']}: {warning.text}")


def _loss(
    model: Any, teacher: LiveTeacher | ServedTeacher, objective: OnPolicyDistil, batch: GroupedBatch, tensors: MicroBatch
) -> Loss:
    """The mean loss over the tokens of a micro-batch, with `FIDELITY` of each token as metrics, as far as it is known."""
    scale = gradient_scale(objective.divergence, objective.temperature)
    if isinstance(teacher, ServedTeacher):
        return loss_by_logprobs(model, batch, tensors, advantage_clip=objective.advantage_clip, scale=scale)
    # An answer's last token may be outside of the teacher's vocabulary. It predicts nothing, but it must have an embedding.
    known = replace(batch, input_ids_NT=batch.input_ids_NT.clamp(max=teacher.rows - 1))
    compared = _with_fidelity(beside(teacher, objective, known, tensors), teacher, objective, batch)
    logprobs_S, values_SX = logprobs_beside(model, batch, tensors["share"], compared, objective.temperature)
    values_S = values_SX[:, 0]
    if objective.form == "full":
        nothing_S = torch.zeros_like(batch.targets_S, dtype=torch.bool)
        loss = distil(Distilled(values_S, logprobs_S.detach(), nothing_S), sft_weight=0.0, scale=scale)
    else:
        loss = sampled_reverse_kl(logprobs_S, values_S, advantage_clip=objective.advantage_clip, scale=scale)
    return Loss(loss.value, loss.metrics | dict(zip(FIDELITY, values_SX[:, 1:].detach().unbind(-1), strict=True)))


def _with_fidelity(plain: Beside, teacher: LiveTeacher, objective: OnPolicyDistil, batch: GroupedBatch) -> Beside:
    """values_SX at each token: the divergence or, in the sampled form, the teacher's log-probability of it; then its `FIDELITY`."""
    temperature = objective.temperature

    def measured(values_C: Tensor, logits_CV: Tensor, teacher_CV: Tensor) -> Tensor:
        fidelity_CX = fidelity(*teacher.vocabulary.cut(logits_CV.detach(), teacher_CV), temperature)
        return torch.cat([values_C.unsqueeze(-1), fidelity_CX], -1)

    def compare(logits_CV: Tensor, teacher_CV: Tensor) -> Tensor:
        return measured(plain.compare(logits_CV, teacher_CV), logits_CV, teacher_CV)

    @torch.no_grad()
    def compare_sampled(logits_CV: Tensor, places_C: Tensor) -> Tensor:
        teacher_CV = plain.head(plain.states_SX[places_C])
        _, known_CV = teacher.vocabulary.cut(logits_CV, teacher_CV)
        targets_C = batch.targets_S[places_C]
        logps_CV = (known_CV.float() / temperature).log_softmax(-1)
        inside_C = targets_C < logps_CV.shape[-1]
        logps_C = logps_CV.gather(-1, targets_C.where(inside_C, 0).unsqueeze(-1)).squeeze(-1)
        return measured(logps_C.where(inside_C, -torch.inf), logits_CV, teacher_CV)

    if objective.form == "full":
        return replace(plain, compare=compare)
    places_S = torch.arange(len(batch.targets_S), device=batch.targets_S.device)
    return Beside(places_S, lambda places_C: places_C, compare_sampled)
