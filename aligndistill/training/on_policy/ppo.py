"""One PPO training run: from a policy, a critic and a reward source to a trained policy."""

from dataclasses import replace
from pathlib import Path

from aligndistill.config.models import Lora
from aligndistill.config.objectives import Ppo
from aligndistill.errors import TrainingError
from aligndistill.models.actor_critic import ActorCritic
from aligndistill.models.load import LanguageModel
from aligndistill.models.reward import RewardModel
from aligndistill.processes.progress import say
from aligndistill.training.adapters import with_adapters, without_dropout
from aligndistill.training.arguments import training_arguments, within_tokens
from aligndistill.training.checkpoints import all_checkpoints, find_damage
from aligndistill.training.fit import Trained, TrainingJob, fit
from aligndistill.training.on_policy.collecting import PpoWork
from aligndistill.training.on_policy.rollouts import longest_row, rollout_settings
from aligndistill.training.on_policy.trainer import BudgetSpent, PpoTrainer

ADAM_EPSILON = 1e-5
"""The value in released PPO implementations for language models ("The N+ Implementation Details of RLHF with PPO")."""


def train_ppo(
    policy: LanguageModel, critic: RewardModel | None, settings: Ppo, lora: Lora | None, work: PpoWork, job: TrainingJob
) -> Trained:
    """Train a policy by PPO.

    Args:
        critic: the initial critic; None for a value head on the policy's backbone.

    Raises:
        InvariantError: an invariant was violated.
        TrainingError: `kl_budget` was exceeded before the first checkpoint.
    """
    lora = without_dropout(lora)
    model = ActorCritic(
        with_adapters(policy.model, lora, "CAUSAL_LM", job.seed),
        with_adapters(critic.model, lora, "SEQ_CLS", job.seed) if critic else None,
    )
    policy = LanguageModel(model.policy, policy.conversation, policy.shares_prompt and (critic is None or critic.shares_prompt))
    row = longest_row(work.prompts, settings, job, policy.shares_prompt)
    arguments = training_arguments(job.settings, within_tokens(job.runtime, row), job.folder, job.name, job.seed)
    steps = settings.steps_per_update
    if arguments.max_steps <= 0:
        passes = len(work.prompts) * job.settings.num_train_epochs
        arguments.max_steps = max(round(passes / (job.settings.batch_size * settings.minibatches)), 1) * steps
    arguments.logging_steps = steps
    save_steps = job.runtime.save_steps
    if settings.kl_budget is not None:  # a checkpoint to return to is needed
        save_steps = min(save_steps, arguments.max_steps // 10)
        kept = max(job.runtime.save_total_limit, 2)
        job = replace(job, runtime=job.runtime.model_copy(update={"save_total_limit": kept}))
    arguments.save_steps = max(-(-save_steps // steps), 1) * steps  # checkpoints are whole updates
    arguments.ignore_data_skip = True  # the data depend on the number of the update alone
    arguments.adam_epsilon = ADAM_EPSILON
    trainer = PpoTrainer(
        settings,
        policy,
        work,
        rollout_settings(settings, job),
        model=model,
        args=arguments,
        processing_class=policy.conversation.tokenizer,
    )
    try:
        trained = fit(trainer, job)
        trainer.require_budget()
        return trained
    except BudgetSpent as spent:
        return _inside_the_budget(trainer, job, settings, spent)


def _inside_the_budget(trainer: PpoTrainer, job: TrainingJob, settings: Ppo, spent: BudgetSpent) -> Trained:
    """The newest checkpoint from before the policy that exceeded the budget: all earlier policies were within it."""
    limit = spent.update * settings.steps_per_update
    inside = [one for one in all_checkpoints(job.folder) if _step(one) < limit and find_damage(one) is None]
    if not inside:
        raise TrainingError(
            f"after {spent.update} updates KL was {spent.kl_nats:.2f} nats per answer, above kl_budget {settings.kl_budget}, and "
            "no checkpoint within the budget was saved. Lower learning_rate, or raise kl_budget."
        )
    trainer.go_back_to(inside[-1])
    say(
        f"  {job.name}: after {spent.update} updates KL was {spent.kl_nats:.2f} nats per answer, above kl_budget "
        f"{settings.kl_budget}: the result is {inside[-1].name}, the last checkpoint within it"
    )
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    return Trained(trainer, log, trainer.seconds(), trainer.state.global_step)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])
