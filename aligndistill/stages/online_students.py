"""A student that learns from rewards for what it samples itself."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from transformers import AutoModelForCausalLM

from aligndistill.chat.served_policy import ServedPolicy
from aligndistill.config import Evaluation, Judge, Lora, Ppo, Student
from aligndistill.errors import ConfigError
from aligndistill.evaluation.wins import by_prompt, win_rates
from aligndistill.judges.protocol import Task
from aligndistill.models.actor_critic import critic_from_reward_model, critic_from_trunk
from aligndistill.models.conversation import Conversation
from aligndistill.models.load import LanguageModel, ModelPointer, load_language_model, read_pointer
from aligndistill.models.reward import RewardModel
from aligndistill.progress import say
from aligndistill.records import Answer, Candidate, Finish, Message, Prompt, Ranking, Record, candidate_id
from aligndistill.stages.answers import held_out_prompts
from aligndistill.stages.open_models import Servers, open_judge
from aligndistill.stages.rewards import REWARD_MODEL, RewardPart, for_part, open_rewards
from aligndistill.stages.stage import Made, Work, require_records
from aligndistill.stages.training_log import write_log
from aligndistill.store.jsonl import Appender, read_jsonl, write_jsonl
from aligndistill.training.collecting import PpoWork
from aligndistill.training.distributed import from_all, is_main_process, our_share
from aligndistill.training.health import all_warnings
from aligndistill.training.job import Job
from aligndistill.training.online import train_ppo
from aligndistill.training.rollouts import PolicyPrompt, Rollout, Sampling, draw
from aligndistill.training.save import save_model
from aligndistill.training.served_rollouts import Served

START_ANSWERS = "answers by start"
"""The name of the input that holds the start's answers to the held-out prompts."""

SAMPLES = "samples.jsonl"
SHOWN_PROMPTS = 4


class RolloutSample(Record):
    """One sampled answer of one update: a row of the table of samples.

    Attributes:
        place: of its prompt in the update.
        kl_nats: log(policy / start) of the answer, nats.
    """

    update: int
    place: int
    prompt_id: str
    messages: tuple[Message, ...]
    text: str
    finish: Finish
    score: float | None
    kl_nats: float
    length_tokens: int


@dataclass(frozen=True)
class Watch:
    """How a policy is compared with the start on held-out prompts while it learns.

    Attributes:
        inputs: put before the names of those of the stage's inputs that are the judge's models.
        max_new_tokens: of an answer, as the start and the finished student have it.
    """

    judge: Judge
    servers: Servers
    content: str
    inputs: str
    evaluation: Evaluation
    max_new_tokens: int


def make_ppo_student(
    work: Work,
    name: str,
    settings: Student,
    lora: Lora | None,
    parts: Sequence[RewardPart],
    watch: Watch | None,
    critic_is_reward_model: bool,
) -> Made:
    """Train one student by PPO and save its policy as an ordinary Hugging Face folder."""
    objective = settings.objective
    assert isinstance(objective, Ppo)
    served = _served(work, objective)
    start = read_pointer(work.inputs["start"])
    trained_from = start.for_training(adapters=lora is not None)
    policy = load_language_model(trained_from)
    prompts, dropped = policy_prompts(work, policy.conversation, policy.max_positions, settings)

    rewards = open_rewards(work, parts)
    with Appender(work.scratch / f"samples-{'main' if is_main_process() else 'other'}.jsonl") as samples:
        ppo_work = PpoWork(
            prompts=prompts,
            reference=load_language_model(start) if lora is None else None,
            score=rewards,
            win_rate=_win_rate(work, watch, objective) if watch else None,
            keep_samples=lambda update, rollouts: samples.add(_shown(update, rollouts)),
            frozen=rewards.models,
            served=served,
        )
        critic = _critic(work, trained_from, objective, lora, critic_is_reward_model)
        job = Job(name, settings, work.runtime, work.scratch, work.seed)
        try:
            trained = train_ppo(policy, critic, objective, lora, ppo_work, job)
        finally:
            if served is not None and is_main_process():
                served.clear()
    save_model(trained, work.folder / "model", start, lora is not None, AutoModelForCausalLM)
    if not is_main_process():
        return Made()
    start.model_copy(update={"path": "model", "revision": None, "trust_remote_code": False}).write(work.folder)
    write_log(work.folder, trained)
    updates = len(trained.log)
    write_jsonl(work.folder / SAMPLES, _once(work.scratch / "samples-main.jsonl", updates))
    return Made(
        counts={"prompts": len(prompts), "updates": updates, "steps": trained.steps},
        dropped=dropped,
        figures={
            "train_seconds": trained.seconds,
            "shares_prompt": policy.shares_prompt,
            "warnings": [f"update {warning.update}: {warning.text}" for warning in all_warnings(trained.log, objective)],
        },
    )


def policy_prompts(
    work: Work, conversation: Conversation, max_positions: int | None, settings: Student
) -> tuple[list[PolicyPrompt], dict[str, int]]:
    """The training prompts that leave room for an answer, and what was left out by reason.

    Raises:
        DataError: none is left.
    """
    found: dict[str, tuple[Message, ...]] = {}
    if "prompts" in work.inputs:
        rows: Iterable[Prompt] = read_jsonl(work.inputs["prompts"] / "prompts.jsonl", Prompt)
        found = {prompt.id: prompt.messages for prompt in rows if prompt.split == "train"}
    else:
        rankings = read_jsonl(work.inputs["rankings"] / "rankings.jsonl", Ranking)
        found = {ranking.prompt_id: ranking.messages for ranking in rankings if ranking.split == "train"}
    prompts = [PolicyPrompt(identity, messages, conversation.prompt_ids(messages)) for identity, messages in found.items()]
    longest = settings.max_prompt_tokens
    if max_positions is not None:
        longest = min(longest, max_positions - settings.max_response_tokens)
    fitting = [prompt for prompt in prompts if len(prompt.ids) <= longest]
    too_long = len(prompts) - len(fitting)
    dropped = {"prompt too long": too_long} if too_long else {}
    require_records(len(fitting), "training prompts", dropped)
    return fitting, dropped


def _critic(work: Work, start: ModelPointer, objective: Ppo, lora: Lora | None, is_reward_model: bool) -> RewardModel | None:
    if objective.critic == "shared":
        return None
    if is_reward_model:
        return critic_from_reward_model(read_pointer(work.inputs[REWARD_MODEL]).for_training(adapters=lora is not None))
    return critic_from_trunk(start, work.seed)


def _served(work: Work, objective: Ppo) -> Served | None:
    """The server that samples for the policy, if the config names one.

    Raises:
        ConfigError: there is no place for the weights.
        TrainingError: the server is not there, or not fit for it.
    """
    if objective.server is None:
        return None
    server = ServedPolicy(objective.server)
    server.require_ready()
    between = objective.server.weights
    weights = (Path(between).expanduser() / work.folder.name if between else work.scratch / "weights").absolute()
    try:
        weights.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        advice = "Name another in objective.server.weights."
        raise ConfigError(f"the folder for the weights that the rollout server loads cannot be made: {error}. {advice}") from None
    return Served(server, weights)


def _win_rate(work: Work, watch: Watch, objective: Ppo) -> Callable[[LanguageModel], float | None]:
    """The policy's win rate over the start's first answers to some held-out prompts; equal answers are a draw.

    All processes must ask for it together: each answers its share of the prompts, and all get the same rate. None where no verdict
    can be read.
    """
    start = {
        answer.prompt_id: answer for answer in reversed(list(read_jsonl(work.inputs[START_ANSWERS] / "answers.jsonl", Answer)))
    }
    messages = {prompt.id: prompt.messages for prompt in held_out_prompts(work, watch.evaluation.prompts) if prompt.id in start}
    chosen = our_share(sorted(messages)[: objective.evaluate_prompts])
    judge = open_judge(for_part(work, watch.inputs), watch.judge, watch.servers)

    def rates_here(policy: LanguageModel) -> list[float]:
        conversation = policy.conversation
        prompts = [PolicyPrompt(identity, messages[identity], conversation.prompt_ids(messages[identity])) for identity in chosen]
        runtime = work.runtime
        sampling = Sampling(
            1,
            watch.evaluation.temperature,
            watch.max_new_tokens,
            runtime.per_device_eval_batch_size,
            work.seed,
            runtime.compile_decoding,
        )
        drawn = draw(policy, prompts, chosen, sampling)
        tasks, ours, theirs = [], {}, {}
        for prompt, (sampled,) in zip(prompts, drawn, strict=True):
            answer, before = conversation.response_text(prompt.ids, sampled.ids), start[prompt.id]
            ours[prompt.id], theirs[prompt.id] = ([candidate_id(prompt.id, "", text)] for text in (answer, before.text))
            if answer != before.text:
                pair = ((ours, answer, sampled.finish), (theirs, before.text, before.finish))
                candidates = tuple(
                    Candidate(id=ids[prompt.id][0], prompt_id=prompt.id, text=text, author="policy", finish=finish)
                    for ids, text, finish in pair
                )
                tasks.append(Task(prompt.id, prompt.messages, candidates, ((0, 1),)))
        verdicts = [verdict for judged in judge.judge(tasks) for verdict in judged.verdicts]
        return win_rates(by_prompt(verdicts), ours, theirs)

    def win_rate(policy: LanguageModel) -> float | None:
        rates = from_all(lambda: rates_here(policy))
        if rates:
            return fmean(rates)
        if is_main_process():
            say(f"  no verdict of {judge.name} on the held-out answers could be read: this update has no win rate")
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


def _once(path: Path, updates: int) -> list[RolloutSample]:
    """An update that was made again after a kill counts once; one that was taken back, not at all."""
    rows = {(row.update, row.place): row for row in read_jsonl(path, RolloutSample)}
    return [rows[key] for key in sorted(rows) if key[0] <= updates]
