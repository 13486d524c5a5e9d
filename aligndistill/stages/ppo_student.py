"""Students trained by PPO on rewards for their own answers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from aligndistill.chat.local import split_answer
from aligndistill.config.models import Lora
from aligndistill.config.objectives import Ppo
from aligndistill.config.paths import at_home
from aligndistill.config.run import AnswerSampling, Evaluation
from aligndistill.config.students import Student
from aligndistill.errors import ConfigError
from aligndistill.evaluation.wins import by_prompt, compared, win_rates
from aligndistill.judges.protocol import Task
from aligndistill.models.actor_critic import critic_from_backbone, critic_from_reward_model
from aligndistill.models.load import LanguageModel, ModelPointer, load_language_model, read_pointer
from aligndistill.models.reward import RewardModel
from aligndistill.processes.progress import say
from aligndistill.processes.ranks import from_all, is_main_process, our_share
from aligndistill.records import Answer, Candidate, candidate_id
from aligndistill.stages.context import ModelSource, StageContext
from aligndistill.stages.files import ANSWERS, RolloutSample, held_out_prompts
from aligndistill.stages.on_policy_student import SHOWN_PROMPTS, finish, frozen_reference, kept_samples, policy_prompts
from aligndistill.stages.opening import open_judge
from aligndistill.stages.rewards import open_rewards
from aligndistill.stages.student_folder import save_student
from aligndistill.store.jsonl import read_jsonl
from aligndistill.store.stage import StageResult
from aligndistill.training.fit import TrainingJob
from aligndistill.training.on_policy.collecting import PpoWork
from aligndistill.training.on_policy.ppo import train_ppo
from aligndistill.training.on_policy.rollout_server import RolloutServerClient
from aligndistill.training.on_policy.rollouts import PolicyPrompt, Rollout, RolloutSettings, sample_rollouts
from aligndistill.training.on_policy.weight_sync import ServedRollouts


@dataclass(frozen=True)
class PpoSources:
    """The inputs of PPO; see `students.make`."""

    start: Path
    reference: Path
    prompts: Path
    models: Mapping[str, ModelSource]
    reward_model: Path | None
    critic: Path | None


@dataclass(frozen=True)
class HeldOutWinRate:
    """How a policy is compared with the start on held-out prompts during training."""

    evaluation: Evaluation
    sampling: AnswerSampling
    models: Mapping[str, ModelSource]
    prompts: Path
    start_answers: Path


def train_with_ppo(
    context: StageContext, settings: Student, lora: Lora | None, seed: int, inputs: PpoSources, watched: HeldOutWinRate | None
) -> StageResult:
    """Train one student by PPO and save its policy as a Hugging Face folder."""
    objective = settings.objective
    assert isinstance(objective, Ppo)
    served = _served(context, objective)
    start = read_pointer(inputs.start)
    trained_from = start.for_training(adapters=lora is not None)
    policy = load_language_model(trained_from)
    prompts, dropped = policy_prompts(inputs.prompts, policy.conversation, policy.max_positions, settings)

    rewards = open_rewards(context, objective.rewards, inputs.models, inputs.reward_model, seed)
    with kept_samples(context) as samples:
        ppo_work = PpoWork(
            prompts=prompts,
            reference=frozen_reference(inputs.start, inputs.reference, lora, policy.tokenizer),
            score=rewards,
            win_rate=_win_rate(context, watched, objective, seed) if watched else None,
            keep_samples=lambda update, rollouts: samples.add(_shown(update, rollouts)),
            frozen=rewards.models,
            served=served,
        )
        critic = _critic(inputs, trained_from, objective, lora, seed)
        job = TrainingJob(context.name.removeprefix("student-"), settings, context.runtime, context.scratch, seed)
        try:
            trained = train_ppo(policy, critic, objective, lora, ppo_work, job)
        finally:
            if served is not None and is_main_process():
                served.clear()
    save_student(context, start, lora, trained)
    return finish(context, policy, objective, trained, len(prompts), len(trained.log), dropped)


def _critic(inputs: PpoSources, start: ModelPointer, objective: Ppo, lora: Lora | None, seed: int) -> RewardModel | None:
    if objective.critic == "shared":
        return None
    if inputs.critic is None or inputs.critic == inputs.start:
        return critic_from_backbone(start.unquantised(), seed)
    return critic_from_reward_model(read_pointer(inputs.critic).for_training(adapters=lora is not None))


def _served(context: StageContext, objective: Ppo) -> ServedRollouts | None:
    """The rollout server, if the config names one.

    Raises:
        ConfigError: the folder for the weights cannot be created.
        TrainingError: the server cannot be reached, or is not suitable.
    """
    if objective.server is None:
        return None
    server = RolloutServerClient(objective.server)
    server.require_ready()
    between = objective.server.weights
    weights = (at_home(between) / context.folder.name if between else context.scratch / "weights").absolute()
    try:
        weights.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        advice = "Set another folder in objective.server.weights."
        raise ConfigError(f"cannot create the folder for the rollout server's weights: {error}. {advice}") from None
    return ServedRollouts(server, weights)


def _win_rate(context: StageContext, watched: HeldOutWinRate, objective: Ppo, seed: int) -> Callable[[LanguageModel], float | None]:
    """The policy's win rate over the start's first answers to some held-out prompts; equal answers are a tie.

    A collective call: each process answers its share of the prompts, and all get the same rate. None if no verdict can be read.
    """
    start = {answer.prompt_id: answer for answer in reversed(list(read_jsonl(watched.start_answers / ANSWERS, Answer)))}
    held_out = held_out_prompts(watched.prompts, watched.sampling.prompts)
    messages = {prompt.id: prompt.messages for prompt in held_out if prompt.id in start}
    chosen = our_share(sorted(messages)[: objective.evaluate_prompts])
    assert watched.evaluation.judge is not None and watched.evaluation.judge != "same", "the config's checks see to that"
    judge = open_judge(context, watched.evaluation.judge, watched.models, seed)

    def rates_here(policy: LanguageModel) -> list[float]:
        conversation = policy.conversation
        prompts = [PolicyPrompt(identity, messages[identity], conversation.prompt_ids(messages[identity])) for identity in chosen]
        runtime = context.runtime
        sampling = RolloutSettings(
            1,
            watched.sampling.temperature,
            watched.sampling.max_new_tokens,
            runtime.per_device_eval_batch_size,
            seed,
            runtime.compile_decoding,
        )
        drawn = sample_rollouts(policy, prompts, chosen, sampling)
        tasks, ours, theirs = [], {}, {}
        for prompt, (sampled,) in zip(prompts, drawn, strict=True):
            answer, before = split_answer(conversation, prompt.ids, sampled.ids).answer, start[prompt.id]
            ours[prompt.id], theirs[prompt.id] = ([candidate_id(prompt.id, "", text)] for text in (answer, before.text))
            if answer != before.text:
                pair = ((ours, answer, sampled.finish), (theirs, before.text, before.finish))
                candidates = tuple(
                    Candidate(id=ids[prompt.id][0], prompt_id=prompt.id, text=text, author="policy", finish=finish)
                    for ids, text, finish in pair
                )
                tasks.append(Task(prompt.id, prompt.messages, candidates, ((0, 1),)))
        verdicts = [verdict for judged in judge.judge(tasks) for verdict in judged.verdicts]
        return win_rates(compared(by_prompt(verdicts), ours, theirs))

    def win_rate(policy: LanguageModel) -> float | None:
        rates = from_all(lambda: rates_here(policy))
        if rates:
            return fmean(rates)
        if is_main_process():
            say(f"  none of the verdicts of {judge.name} on the held-out answers could be read: this update has no win rate")
        return None

    return win_rate


def _shown(update: int, rollouts: Sequence[Rollout]) -> list[RolloutSample]:
    """The first answers to the first prompts of an update."""
    return [
        RolloutSample(
            update=update + 1,
            place=place,
            prompt_id=rollout.prompt.id,
            messages=rollout.prompt.messages,
            text=rollout.texts[0],
            finish=rollout.finishes[0],
            score=rollout.scores[0],
            kl_nats=sum(rollout.logprobs[0]) - sum(rollout.reference[0]),
            length_tokens=len(rollout.responses[0]),
        )
        for place, rollout in enumerate(rollouts[:SHOWN_PROMPTS])
    ]
