"""`kl_budget`: training ends at the newest checkpoint whose policy is within it, as in PPO, so in on-policy distillation."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from accelerate.utils import gather_object
from transformers import TrainerState
from transformers.integrations.deepspeed import deepspeed_load_checkpoint

from aligndistill.errors import TrainingError
from aligndistill.models.groups import TokenGroup
from aligndistill.models.load import LanguageModel
from aligndistill.processes.progress import say
from aligndistill.training import frozen
from aligndistill.training.checkpoints import all_checkpoints, find_damage
from aligndistill.training.fit import Trained, TrainingJob
from aligndistill.training.on_policy.rollouts import PerToken, RolloutSettings, policy_logprobs, reference_of


class BudgetSpent(Exception):
    """The policy's KL is above `kl_budget`."""

    def __init__(self, update: int, kl_nats: float) -> None:
        super().__init__(update)
        self.update, self.kl_nats = update, kl_nats


@dataclass(frozen=True)
class KlBudget:
    """A limit on a policy's KL from its reference.

    Attributes:
        nats: the limit, per answer.
        reference: the frozen reference; None if it is the policy with its adapters disabled.
    """

    nats: float
    reference: LanguageModel | None

    def shard(self, accelerator: Any) -> None:
        """Shard the reference under ZeRO-3."""
        config = frozen.zero3_config(accelerator)
        if config is not None and self.reference is not None:
            frozen.shard_model([self.reference.model], config)

    def kl_nats(self, policy: LanguageModel, groups: Sequence[TokenGroup], sampling: RolloutSettings) -> list[float]:
        """log(policy / reference) of each of this process's answers, by a pass of both: its mean is their KL. A collective call."""
        models = [] if self.reference is None else [self.reference.model]
        with reference_of(policy, self.reference) as reference, frozen.gathered(models):
            of_reference = policy_logprobs(reference, groups, sampling)
        return answers_kl_nats(policy_logprobs(policy, groups, sampling), of_reference)

    def require(self, update: int, kl_nats: Sequence[float]) -> None:
        """Compare the mean over the answers of all processes. A collective call.

        Raises:
            BudgetSpent: it is above the budget.
        """
        mean = fmean(gather_object(list(kl_nats)))
        if mean > self.nats:
            raise BudgetSpent(update, mean)


def answers_kl_nats(policy: PerToken, reference: PerToken) -> list[float]:
    """log(policy / reference) of each answer, nats."""
    return [sum(p) - sum(r) for rows in zip(policy, reference, strict=True) for p, r in zip(*rows, strict=True)]


def keeping_checkpoints(job: TrainingJob, steps: int) -> TrainingJob:
    """The job with a checkpoint at least every tenth of its steps, and one from before the newest: one to return to."""
    runtime = job.runtime
    save_steps, kept = max(min(runtime.save_steps, steps // 10), 1), max(runtime.save_total_limit, 2)
    return replace(job, runtime=runtime.model_copy(update={"save_steps": save_steps, "save_total_limit": kept}))


def inside_the_budget(trainer: Any, job: TrainingJob, budget_nats: float, spent: BudgetSpent, steps_per_update: int = 1) -> Trained:
    """The newest checkpoint from before the policy that exceeded the budget: all earlier policies were within it.

    Raises:
        TrainingError: no checkpoint was saved within the budget.
    """
    limit = spent.update * steps_per_update
    inside = [one for one in all_checkpoints(job.folder) if _step(one) < limit and find_damage(one) is None]
    after = f"after {spent.update} updates KL was {spent.kl_nats:.2f} nats per answer, above kl_budget {budget_nats}"
    if not inside:
        raise TrainingError(f"{after}, and no checkpoint within the budget was saved. Lower learning_rate, or raise kl_budget.")
    _go_back_to(trainer, inside[-1])
    say(f"  {job.name}: {after}: the result is {inside[-1].name}, the last checkpoint within it")
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    return Trained(trainer, log, trainer.seconds(), trainer.state.global_step)


def _go_back_to(trainer: Any, checkpoint: Path) -> None:
    """Load the weights of a checkpoint, and discard later ones."""
    if trainer.is_deepspeed_enabled:
        deepspeed_load_checkpoint(trainer.model_wrapped, str(checkpoint), load_module_strict=False)
    else:
        trainer._load_from_checkpoint(str(checkpoint))
    trainer.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])
