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
from aligndistill.training.adapters import with_adapters
from aligndistill.training.arguments import training_arguments, within_tokens
from aligndistill.training.checkpoints import all_checkpoints, find_damage
from aligndistill.training.fit import Trained, TrainingJob, fit
from aligndistill.training.on_policy.collecting import PpoWork
from aligndistill.training.on_policy.rollouts import RolloutSettings
from aligndistill.training.on_policy.trainer import BudgetSpent, PpoTrainer

ADAM_EPSILON = 1e-5
"""As every released PPO for language models has it ("The N+ Implementation Details of RLHF with PPO")."""


def train_ppo(
    policy: LanguageModel, critic: RewardModel | None, settings: Ppo, lora: Lora | None, work: PpoWork, job: TrainingJob
) -> Trained:
    """Train a policy by PPO.

    Args:
        critic: how the critic begins; None for a value head on the policy's trunk.

    Raises:
        InvariantError: something that must hold did not.
        TrainingError: `kl_budget` was passed before there was a checkpoint.
    """
    if lora is not None:  # dropout would make the policy that learns another one than the policy that sampled
        lora = lora.model_copy(update={"lora_dropout": 0.0})
    model = ActorCritic(
        with_adapters(policy.model, lora, "CAUSAL_LM", job.seed),
        with_adapters(critic.model, lora, "SEQ_CLS", job.seed) if critic else None,
    )
    policy = LanguageModel(model.policy, policy.conversation, policy.shares_prompt and (critic is None or critic.shares_prompt))
    samples, longest = settings.samples_per_prompt, max(len(prompt.ids) for prompt in work.prompts)
    row = longest * (1 if policy.shares_prompt else samples) + samples * job.settings.max_response_tokens
    arguments = training_arguments(job.settings, within_tokens(job.runtime, row), job.folder, job.name, job.seed)
    steps = settings.steps_per_update
    if arguments.max_steps <= 0:
        passes = len(work.prompts) * job.settings.num_train_epochs
        arguments.max_steps = max(round(passes / (job.settings.batch_size * settings.minibatches)), 1) * steps
    arguments.logging_steps = steps
    save_steps = job.runtime.save_steps
    if settings.kl_budget is not None:  # there must be something to go back to
        save_steps = min(save_steps, arguments.max_steps // 10)
        kept = max(job.runtime.save_total_limit, 2)
        job = replace(job, runtime=job.runtime.model_copy(update={"save_total_limit": kept}))
    arguments.save_steps = max(-(-save_steps // steps), 1) * steps  # checkpoints are whole updates
    arguments.ignore_data_skip = True  # the data follow from the number of the update
    arguments.adam_epsilon = ADAM_EPSILON
    sampling = RolloutSettings(
        settings.samples_per_prompt,
        settings.temperature,
        job.settings.max_response_tokens,
        job.runtime.per_device_eval_batch_size,
        job.seed,
        job.runtime.compile_decoding,
    )
    trainer = PpoTrainer(
        settings, policy, work, sampling, model=model, args=arguments, processing_class=policy.conversation.tokenizer
    )
    try:
        trained = fit(trainer, job)
        trainer.require_budget()
        return trained
    except BudgetSpent as spent:
        return _inside_the_budget(trainer, job, settings, spent)


def _inside_the_budget(trainer: PpoTrainer, job: TrainingJob, settings: Ppo, spent: BudgetSpent) -> Trained:
    """The newest checkpoint from before the policy that passed the budget: every policy before that one was inside it."""
    limit = spent.update * settings.steps_per_update
    inside = [one for one in all_checkpoints(job.folder) if _step(one) < limit and find_damage(one) is None]
    if not inside:
        raise TrainingError(
            f"after {spent.update} updates KL was {spent.kl_nats:.2f} nats per answer, past kl_budget {settings.kl_budget}, and no "
            "checkpoint from inside the budget is kept. Lower learning_rate, or raise kl_budget."
        )
    trainer.go_back_to(inside[-1])
    say(
        f"  {job.name}: after {spent.update} updates KL was {spent.kl_nats:.2f} nats per answer, past kl_budget "
        f"{settings.kl_budget}: the result is {inside[-1].name}, the last checkpoint inside it"
    )
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    return Trained(trainer, log, trainer.seconds(), trainer.state.global_step)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])
