"""One PPO training run: from a policy, a critic and a reward source to a trained policy."""

from aligndistill.config.models import Lora
from aligndistill.config.objectives import Ppo
from aligndistill.models.actor_critic import ActorCritic
from aligndistill.models.load import LanguageModel
from aligndistill.models.reward import RewardModel
from aligndistill.training.adapters import with_adapters, without_dropout
from aligndistill.training.arguments import training_arguments, within_tokens
from aligndistill.training.fit import Trained, TrainingJob, fit
from aligndistill.training.on_policy.collecting import PpoWork
from aligndistill.training.on_policy.kl_budget import BudgetSpent, inside_the_budget, keeping_checkpoints
from aligndistill.training.on_policy.rollouts import longest_row, rollout_settings
from aligndistill.training.on_policy.trainer import PpoTrainer
from aligndistill.training.on_policy.weight_sync import require_servable

ADAM_EPSILON = 1e-5
"""The value in released PPO implementations for language models ("The N+ Implementation Details of RLHF with PPO")."""


def train_ppo(
    policy: LanguageModel, critic: RewardModel | None, settings: Ppo, lora: Lora | None, work: PpoWork, job: TrainingJob
) -> Trained:
    """Train a policy by PPO.

    Args:
        critic: the initial critic; None for a value head on the policy's backbone.

    Raises:
        ConfigError: a rollout server cannot load what is trained.
        InvariantError: an invariant was violated.
        TrainingError: `kl_budget` was exceeded before the first checkpoint.
    """
    lora = without_dropout(lora)
    model = ActorCritic(
        with_adapters(policy.model, lora, "CAUSAL_LM", job.seed),
        with_adapters(critic.model, lora, "SEQ_CLS", job.seed) if critic else None,
    )
    if work.served is not None:
        require_servable(model.policy)
    policy = LanguageModel(model.policy, policy.conversation, policy.shares_prompt and (critic is None or critic.shares_prompt))
    row = longest_row(work.prompts, settings, job, policy.shares_prompt)
    arguments = training_arguments(job.settings, within_tokens(job.runtime, row), job.folder, job.name, job.seed)
    steps = settings.steps_per_update
    if arguments.max_steps <= 0:
        arguments.max_steps = job.settings.whole_updates(len(work.prompts), settings.minibatches) * steps
    arguments.logging_steps = steps
    if settings.kl_budget is not None:
        job = keeping_checkpoints(job, arguments.max_steps)
    arguments.save_steps = max(-(-job.runtime.save_steps // steps), 1) * steps  # checkpoints are whole updates
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
        assert settings.kl_budget is not None
        return inside_the_budget(trainer, job, settings.kl_budget, spent, steps)
